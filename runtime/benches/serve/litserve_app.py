"""ONNX Runtime behind LitServe; a picture is base64 in JSON."""

import base64
import sys

import litserve
from network import Network


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.network = Network()

    def decode_request(self, request):
        return base64.b64decode(request["picture"])

    def predict(self, data):
        return self.network.answer(data)

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)

"""ONNX Runtime behind MLServer, in its own process; a picture is base64 in a BYTES tensor."""

from mlserver import MLModel
from mlserver.codecs import Base64Codec
from mlserver.types import InferenceResponse, ResponseOutput
from network import Network


class Classifier(MLModel):
    async def load(self):
        self.network = Network()
        return True

    async def predict(self, payload):
        data = Base64Codec.decode_input(payload.inputs[0])[0]
        answer = self.network.answer(data)
        output = ResponseOutput(name="probabilities", shape=[1, len(answer["probabilities"])], datatype="FP32", data=answer["probabilities"])
        return InferenceResponse(model_name=self.name, outputs=[output])

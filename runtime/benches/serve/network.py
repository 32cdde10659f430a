"""What every peer does with a picture: Pillow decodes and resizes it, ONNX Runtime runs the network on one thread."""

import io
import os

import numpy
import onnxruntime
from PIL import Image


class Network:
    """The network of PEER_ONNX, images as f32 [1, c, h, w] in 0..1."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["PEER_ONNX"], options, ["CPUExecutionProvider"])
        _, self.channels, self.height, self.width = self.session.get_inputs()[0].shape

    def answer(self, data):
        picture = Image.open(io.BytesIO(data)).convert("L" if self.channels == 1 else "RGB")
        if picture.size != (self.width, self.height):
            picture = picture.resize((self.width, self.height), Image.Resampling.BILINEAR)
        pixels = numpy.asarray(picture, dtype=numpy.float32).reshape(self.height, self.width, self.channels) / 255
        logits = self.session.run(["logits"], {"image": pixels.transpose(2, 0, 1)[None]})[0][0]
        odds = numpy.exp(logits - logits.max())
        return {"class": int(logits.argmax()), "probabilities": (odds / odds.sum()).tolist()}

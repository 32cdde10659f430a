"""Float ONNX classifiers as other tools write them, with fixed random weights, and what ONNX Runtime says of them:
`foreign.py FOLDER` writes residual.onnx and plain.onnx, images.f32 (f32 [n, c, h, w]), residual.f32 and plain.f32 (logits).
"""
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

rng = np.random.default_rng(5)
folder = Path(sys.argv[1])


class Net:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def f32(self, *dims, scale=1.0, shift=0.0):
        return self.constant((rng.normal(size=dims) * scale + shift).astype(np.float32))

    def node(self, kind, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, x, c, out, k=3, bias=False, **attributes):
        group = attributes.get("group", 1)
        w = self.f32(out, c // group, k, k, scale=(2 / (k * k * c / group)) ** 0.5)
        inputs = [x, w] + ([self.f32(out, scale=0.1)] if bias else [])
        return self.node("Conv", *inputs, **attributes)

    def norm(self, x, c):
        numbers = [self.f32(c, scale=0.2, shift=1), self.f32(c, scale=0.2), self.f32(c, scale=0.2)]
        variance = self.constant(rng.uniform(0.5, 2, c).astype(np.float32))
        return self.node("BatchNormalization", x, *numbers, variance, epsilon=1e-3)

    def save(self, name, output, logits, classes):
        """`output` is the file's own output; `logits` what is compared."""
        x = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, 16, 16])
        y = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["batch", classes])
        graph = helper.make_graph(self.nodes, name, [x], [y], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, folder / f"{name}.onnx")
        if logits != output:
            model.graph.output.append(onnx.ValueInfoProto(name=logits))
        run = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        run.run([logits], {"input": images})[0].tofile(folder / f"{name}.f32")


images = (rng.integers(0, 256, (24, 3, 16, 16)) / 255).astype(np.float32)
images.tofile(folder / "images.f32")

# Post-activation residual blocks, as torchvision's: Conv without bias, BatchNormalization, Relu; a softmax at the end.
net = Net()
x = net.node("Relu", net.norm(net.conv("input", 3, 8, pads=[1, 1, 1, 1]), 8))
x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
for c, out, stride in [(8, 8, 1), (8, 12, 2)]:
    y = net.node("Relu", net.norm(net.conv(x, c, out, pads=[1, 1, 1, 1], strides=[stride, stride]), out))
    y = net.norm(net.conv(y, out, out, pads=[1, 1, 1, 1]), out)
    skip = x if c == out else net.norm(net.conv(x, c, out, k=1, strides=[stride, stride]), out)
    x = net.node("Relu", net.node("Add", y, skip))
x = net.node("Flatten", net.node("GlobalAveragePool", x), axis=1)
logits = net.node("Gemm", x, net.f32(5, 12), net.f32(5), transB=1)
net.save("residual", net.node("Softmax", logits, axis=1), logits, 5)

# Everything else: a Relu whose input is read twice, grouped convolution, scale and shift as Mul and Add, SAME padding,
# AveragePool, ReduceMean's cousin Reshape over a map, MatMul and its bias, no spatial mean before the last layer.
net = Net()
x = net.conv("input", 3, 6, bias=True)
x = net.node("Add", x, net.node("Relu", x))
x = net.node("Mul", x, net.f32(1, 6, 1, 1, shift=1))
x = net.node("Relu", net.node("Add", net.f32(6, 1, 1, scale=0.2), x))
x = net.node("Identity", net.node("Relu", net.conv(x, 6, 8, group=2, bias=True, auto_pad="SAME_UPPER", strides=[2, 2])))
x = net.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
x = net.node("Reshape", x, net.constant(np.array([0, 72], np.int64)))
x = net.node("Relu", net.node("Add", net.node("MatMul", x, net.f32(72, 16, scale=0.1)), net.f32(16)))
logits = net.node("Gemm", x, net.f32(16, 7), net.f32(7), alpha=0.5, beta=2.0)
net.save("plain", logits, logits, 7)

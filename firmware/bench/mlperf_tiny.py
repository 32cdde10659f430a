"""MLPerf Tiny's image classification network, ResNet-8, as a float ONNX file with pictures to calibrate it on.

What is counted depends on shapes alone, so the weights are random (He's initialisation, seed 0), batch normalisation is folded
into them, and the pictures are noise around a colour for each of ten classes.

Usage: mlperf_tiny.py OUT; writes OUT/resnet8.onnx and OUT/pictures/{train,test}/CLASS/N.ppm
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
nodes, constants = [], []


def constant(name, value):
    constants.append(numpy_helper.from_array(value.astype(np.float32), name))
    return name


def node(kind, inputs, **attributes):
    output = f"t{len(nodes)}"
    nodes.append(helper.make_node(kind, inputs, [output], **attributes))
    return output


def conv(x, c, out, k=3, stride=1):
    w = constant(f"w{len(nodes)}", rng.normal(0, np.sqrt(2 / (c * k * k)), (out, c, k, k)))
    b = constant(f"b{len(nodes)}", rng.normal(0, 0.05, out))
    # As Keras pads: at stride 2 the one row and column go to the end.
    pads = [0] * 4 if k == 1 else [1] * 4 if stride == 1 else [0, 0, 1, 1]
    return node("Conv", [x, w, b], kernel_shape=[k, k], strides=[stride] * 2, pads=pads)


def relu(x):
    return node("Relu", [x])


x = relu(conv("image", 3, 16))
x = relu(node("Add", [conv(relu(conv(x, 16, 16)), 16, 16), x]))
for c in (16, 32):
    y = conv(relu(conv(x, c, 2 * c, stride=2)), 2 * c, 2 * c)
    x = relu(node("Add", [y, conv(x, c, 2 * c, k=1, stride=2)]))
x = node("Flatten", [node("AveragePool", [x], kernel_shape=[8, 8], strides=[8, 8])])
w = constant("dense_w", rng.normal(0, 0.2, (10, 64)))
nodes.append(helper.make_node("Gemm", [x, w, constant("dense_b", rng.normal(0, 0.1, 10))], ["logits"], transB=1))
image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])
logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
graph = helper.make_graph(nodes, "resnet8", [image], [logits], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
onnx.checker.check_model(model)

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
onnx.save(model, out / "resnet8.onnx")
colours = rng.integers(40, 216, (10, 3))
for part, count in (("train", 60), ("test", 20)):
    for label in range(10):
        folder = out / "pictures" / part / f"class-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.clip(colours[label] + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            (folder / f"{i}.ppm").write_bytes(b"P6 32 32 255\n" + pixels.tobytes())

"""Small float classifiers with fixed random weights, each with one thing that a reader may misunderstand, and the
probabilities that ONNX Runtime gives: `graphs.py FOLDER [MORE.onnx ...]` writes for each graph NAME.onnx, NAME.u8 (images,
u8 [n, h, w, c]), NAME.f32 (probabilities, f32 [n, classes]) and, for all, graphs.json: name, extents, and what a reader may
do: "read" (it must be taken), "refuse" (it must not), "either". Whatever is taken must give these probabilities.
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

folder = Path(sys.argv[1])
rng = np.random.default_rng(11)
N, SIDE, CLASSES = 12, 16, 5
listed = []


class Net:
    """A graph under construction; `x` is its image."""

    def __init__(self, channels=3):
        self.nodes, self.constants, self.c = [], [], channels

    def constant(self, value, dtype=np.float32):
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values):
        return self.constant(values, np.int64)

    def random(self, *dims, scale=1.0, shift=0.0):
        return self.constant(rng.normal(size=dims) * scale + shift)

    def node(self, kind, *inputs, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"n{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, c, out, k=3, pad=1, **attributes):
        w = self.random(out, c, k, k, scale=(2 / (k * k * c)) ** 0.5)
        return self.node("Conv", x, w, self.random(out, scale=0.2), pads=[pad] * 4, **attributes)

    def head(self, x, c, classes=CLASSES):
        """Pooled, flattened, classified."""
        x = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.dense(x, c, classes)

    def dense(self, x, c, classes=CLASSES):
        return self.node("Gemm", x, self.random(classes, c, scale=2.0), self.random(classes), transB=1)


def images(shape):
    return rng.integers(0, 256, (N, *shape)).astype(np.uint8)


def softmax(v):
    e = np.exp(v - v.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def answers(model, output, feed):
    """Of one image at a time, since some graphs fix their batch."""
    run = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = run.get_inputs()[0].name
    rows = [run.run([output], {name: feed[i : i + 1]})[0].reshape(1, -1) for i in range(len(feed))]
    return np.concatenate(rows).astype(np.float64)


def put(name, model, may, output, pixels, feed, probabilities=False, mean=(), std=(), gives=None):
    onnx.save(model, folder / f"{name}.onnx")
    pixels.tofile(folder / f"{name}.u8")
    classes = 0
    if may != "refuse":
        values = answers(model, output, feed) if gives is None else gives
        (values if probabilities else softmax(values)).astype(np.float32).tofile(folder / f"{name}.f32")
        classes = values.shape[1]
    listed.append(dict(name=name, may=may, shape=list(pixels.shape[1:]), classes=classes, mean=list(mean), std=list(std)))


def graph(name, build, may="read", opset=17, channels=3, nhwc=False, kind=TensorProto.FLOAT, side=SIDE, **more):
    """`build(net)` returns the output's name; `more` may hold scale (of the pixels that the graph is fed)."""
    net = Net(channels)
    y = build(net)
    dims = ["n", side, side, channels] if nhwc else ["n", channels, side, side]
    x = helper.make_tensor_value_info("x", kind, dims)
    outputs = [y] if isinstance(y, str) else y
    infos = [onnx.ValueInfoProto(name=o) for o in outputs]
    made = helper.make_graph(net.nodes, name, [x], infos, net.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    for o in model.graph.output:
        if not o.type.tensor_type.elem_type:
            o.type.tensor_type.elem_type = TensorProto.FLOAT
    pixels = images((side, side, channels))
    feed = pixels if nhwc else pixels.transpose(0, 3, 1, 2)
    if kind == TensorProto.FLOAT:
        feed = (feed * np.float32(more.get("scale", 1 / 255))).astype(np.float32)
    put(name, model, may, outputs[-1], pixels, feed, more.get("probabilities", False))


def plain(net, x="x", c=3):
    return net.node("Relu", net.conv(x, c, 8))


graph("plain", lambda n: n.head(plain(n), 8))
graph("softmax_last", lambda n: n.node("Softmax", n.head(plain(n), 8), axis=1), probabilities=True)
graph("softmax_identity", lambda n: n.node("Identity", n.node("Softmax", n.head(plain(n), 8))), probabilities=True)
graph("log_softmax_last", lambda n: n.node("LogSoftmax", n.head(plain(n), 8)))
graph("softmax_head", lambda n: n.dense(n.node("Softmax", n.head(plain(n), 8)), CLASSES), may="refuse")
graph("softmax_twice", lambda n: n.node("Softmax", n.node("Softmax", n.head(plain(n), 8))), may="refuse")
graph("softmax_of_batch", lambda n: n.node("Softmax", n.head(plain(n), 8), axis=0), may="refuse")
graph("softmax_planes", lambda n: n.node("Softmax", n.node("GlobalAveragePool", n.conv("x", 3, CLASSES)), axis=1), probabilities=True)


def alias(kind, then):
    def build(n):
        t = n.conv("x", 3, 8)
        other = n.node(kind, t)
        if then == "Relu":
            other = n.node("Relu", other)
        else:
            other = n.node(then, other, n.random(1, 8, 1, 1))
        return n.head(n.node("Relu", n.node("Add", t, other)), 8)

    return build


for alias_kind in ("Identity", "Dropout"):
    for alias_then in ("Relu", "Mul", "Add"):
        graph(f"alias_{alias_kind}_{alias_then}".lower(), alias(alias_kind, alias_then))


def alias_dense(n):
    y = n.head(plain(n), 8)
    return n.node("Add", y, n.node("Mul", n.node("Identity", y), n.random(1, CLASSES)))


graph("alias_dense_mul", alias_dense)
# A constant of extents [W] where W is also the number of channels is one for each column.
graph("columns", lambda n: n.head(n.node("Mul", n.node("Relu", n.conv("x", 3, SIDE)), n.random(SIDE)), SIDE), may="refuse")
graph("columns_bias", lambda n: n.head(n.node("Relu", n.node("Add", n.conv("x", 3, SIDE), n.random(1, SIDE))), SIDE), may="refuse")
graph("channels_mul", lambda n: n.head(n.node("Mul", plain(n), n.random(8, 1, 1)), 8))
graph("one_for_all", lambda n: n.head(n.node("Mul", plain(n), n.constant(0.5)), 8))
graph("features_mul", lambda n: n.dense(n.node("Mul", n.node("Flatten", n.node("GlobalAveragePool", plain(n))), n.random(8)), 8))
graph("grown", lambda n: n.dense(n.node("Flatten", n.node("Mul", n.node("GlobalAveragePool", plain(n)), n.random(8))), 64), may="refuse")


def norm(n, x, c, outputs=1, **attributes):
    numbers = [n.random(c, scale=0.2, shift=1), n.random(c, scale=0.2), n.random(c, scale=0.2)]
    variance = n.constant(rng.uniform(0.5, 2, c))
    y = n.node("BatchNormalization", x, *numbers, variance, outputs=outputs, **attributes)
    return y if outputs == 1 else y[0]


graph("norm", lambda n: n.head(n.node("Relu", norm(n, n.conv("x", 3, 8), 8, epsilon=1e-3)), 8))
graph("norm_training", lambda n: n.head(n.node("Relu", norm(n, n.conv("x", 3, 8), 8, 3, training_mode=1)), 8), may="refuse")
graph("norm_training_13", lambda n: n.head(n.node("Relu", norm(n, n.conv("x", 3, 8), 8, 3)), 8), may="refuse", opset=13)


def dropout_training(n):
    t = n.node("Dropout", plain(n), n.constant(0.5), n.constant(True, bool))
    return n.head(t, 8)


graph("dropout_training", dropout_training, may="refuse")
graph("clip_at_0", lambda n: n.head(n.node("Clip", n.conv("x", 3, 8), n.constant(0.0)), 8))
graph("clip_0_6", lambda n: n.head(n.node("Clip", n.conv("x", 3, 8), n.constant(0.0), n.constant(0.05)), 8), may="refuse")
graph("sigmoid", lambda n: n.node("Sigmoid", n.head(plain(n), 8)), may="refuse")
graph("leaky", lambda n: n.head(n.node("LeakyRelu", n.conv("x", 3, 8)), 8), may="refuse")
graph("one_logit", lambda n: n.head(plain(n), 8, 1), may="refuse")
graph("luma", lambda n: n.head(plain(n, c=1), 8), channels=1)

# Pixels in 0..=255.
graph("div_255", lambda n: n.head(plain(n, n.node("Div", "x", n.constant(255.0))), 8), scale=1)
graph("mul_255th", lambda n: n.head(plain(n, n.node("Mul", "x", n.constant(1 / 255))), 8), scale=1)
mean = lambda n: n.constant(np.array([123.7, 116.3, 103.5]).reshape(1, 3, 1, 1))
graph("mean_of_bytes", lambda n: n.head(plain(n, n.node("Div", n.node("Sub", "x", mean(n)), n.constant(58.0))), 8), scale=1)
byte_image = lambda n: n.node("Div", n.node("Cast", "x", to=TensorProto.FLOAT), n.constant(255.0))
graph("u8", lambda n: n.head(plain(n, byte_image(n)), 8), kind=TensorProto.UINT8)

# Channels last.
first = lambda n, x="x": n.node("Transpose", x, perm=[0, 3, 1, 2])
last = lambda n, x: n.node("Transpose", x, perm=[0, 2, 3, 1])
graph("nhwc", lambda n: n.head(plain(n, first(n)), 8), nhwc=True)


def keras(n):
    t = n.node("Relu", n.node("Add", last(n, n.conv(first(n), 3, 8)), n.random(8, scale=0.2)))
    t = last(n, n.node("MaxPool", first(n, t), kernel_shape=[4, 4], strides=[4, 4]))
    t = n.node("Reshape", t, n.ints(-1, 4 * 4 * 8))
    return n.node("Softmax", n.node("Add", n.node("MatMul", t, n.random(4 * 4 * 8, CLASSES)), n.random(CLASSES)))


graph("keras", keras, nhwc=True, probabilities=True)
graph("nhwc_columns", lambda n: n.head(first(n, n.node("Mul", last(n, plain(n, first(n))), n.random(8))), 8), nhwc=True)
graph("matmul_last", lambda n: n.node("Flatten", n.node("MatMul", last(n, n.node("GlobalAveragePool", plain(n))), n.random(8, CLASSES))))


# Extents that are computed while the model runs.
def view(n):
    t = n.node("GlobalAveragePool", plain(n))
    batch = n.node("Gather", n.node("Shape", t), n.constant(0, np.int64), axis=0)
    shape = n.node("Concat", n.node("Unsqueeze", batch, n.ints(0)), n.ints(-1), axis=0)
    return n.dense(n.node("Reshape", t, shape), 8)


graph("view", view)
graph("flatten_map", lambda n: n.dense(n.node("Flatten", n.node("MaxPool", plain(n), kernel_shape=[4, 4], strides=[4, 4])), 128))
graph("pool_ceil", lambda n: n.head(n.node("MaxPool", plain(n), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), 8))
graph("pool_ceil_wide", lambda n: n.head(n.node("MaxPool", plain(n), kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1), 8))
graph("mean_ceil", lambda n: n.head(n.node("AveragePool", plain(n), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), 8), may="refuse")
graph("mean_no_border", lambda n: n.head(n.node("AveragePool", plain(n), kernel_shape=[3, 3], pads=[1] * 4), 8), may="refuse")
graph("squeezed", lambda n: n.dense(n.node("Squeeze", n.node("GlobalMaxPool", plain(n)), n.ints(2, 3)), 8))
graph("mean_18", lambda n: n.dense(n.node("ReduceMean", plain(n), n.ints(-1, -2), keepdims=0), 8), opset=18)
graph("concat", lambda n: n.head(n.node("Concat", plain(n), plain(n), axis=1), 16), may="refuse")
graph("dilated", lambda n: n.head(n.node("Relu", n.conv("x", 3, 8, pad=2, dilations=[2, 2])), 8), may="refuse")
graph("label_then_scores", lambda n: (lambda y: [n.node("ArgMax", y, axis=1), y])(n.head(plain(n), 8)))


def weights_by_name(n):
    w = n.node("Identity", n.random(8, 3, 3, 3, scale=0.3))
    return n.head(n.node("Relu", n.node("Conv", "x", w, pads=[1] * 4)), 8)


graph("weights_by_name", weights_by_name)
graph("unused_integers", lambda n: (n.constant([1, 2], np.int32), n.head(plain(n), 8))[1])


# A mean and a deviation outside of the graph: the border of the first convolution is the mean.
def outside():
    n = Net()
    y = n.head(plain(n), 8)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    out = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", CLASSES])
    made = helper.make_graph(n.nodes, "outside", [x], [out], n.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pixels, m, s = images((SIDE, SIDE, 3)), [0.49, 0.48, 0.45], [0.2, 0.21, 0.25]
    feed = (pixels / 255 - m) / s
    put("mean_outside", model, "read", y, pixels, feed.transpose(0, 3, 1, 2).astype(np.float32), mean=m, std=s)


outside()

# Graphs of other makers, by path.
for path in map(Path, sys.argv[2:]):
    model = onnx.load(path)
    values = {i.name for i in model.graph.initializer}
    x = next(i for i in model.graph.input if i.name not in values).type.tensor_type
    dims = [d.dim_value for d in x.shape.dim]
    channels_last = dims[3] in (1, 3) and dims[1] not in (1, 3)
    shape = dims[1:] if channels_last else [dims[2], dims[3], dims[1]]
    pixels = images(shape)
    feed = pixels if channels_last else pixels.transpose(0, 3, 1, 2)
    m, s = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]) if "ext" in path.stem and "nt_tiny" in path.stem else ((), ())
    if x.elem_type == TensorProto.FLOAT:
        unit = feed if path.stem.startswith("div255") else feed / 255
        if m:
            unit = (unit - np.reshape(m, (3, 1, 1))) / np.reshape(s, (3, 1, 1))
        feed = unit.astype(np.float32)
    last_node = {o: n.op_type for n in model.graph.node for o in n.output}
    scores = [o.name for o in model.graph.output if last_node.get(o.name) != "ArgMax"][0]
    try:
        put("other_" + path.stem, model, "either", scores, pixels, feed, last_node.get(scores) == "Softmax", m, s)
    except Exception as error:  # what ONNX Runtime does not run has no truth to compare with
        print(f"{path.stem}: {error}")

(folder / "graphs.json").write_text(json.dumps(listed))
print(len(listed), "graphs")

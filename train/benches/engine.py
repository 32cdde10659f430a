"""The peers of `engine.rs`: a float ONNX classifier quantised by LiteRT's, ONNX Runtime's and OpenVINO's own tools, and
timed on one thread, batch 1. `engine.py FOLDER`, with `encoder.onnx` and u8 NHWC images in `images.bin`.

Prints `ready`, then for every line `PEER N` the seconds of N inferences less what the binding costs on an empty network,
and at the end what was found of each peer, lines separated by `;`.
"""

import logging
import os
import sys
import time
from pathlib import Path

os.environ["GLOG_minloglevel"] = os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
folder = Path(sys.argv[1])
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(folder / "peers.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
os.dup2(1, 2)

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime.quantization as ortq
import openvino as ov
import torch

logging.disable(logging.WARNING)
torch.set_num_threads(1)


def litert(net, calibration, at):
    import litert_torch
    import onnx2torch
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    module = litert_torch.to_channel_last_io(onnx2torch.convert(onnx.load(net)).eval(), args=[0])
    nhwc = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in calibration]
    litert_torch.convert(module, (torch.from_numpy(nhwc[0]),)).export(str(at / "float.tflite"))
    q = quantizer.Quantizer(str(at / "float.tflite"), recipe.static_wi8_ai8())
    seen = q.calibrate({"serving_default": [{"args_0": x} for x in nhwc]})
    q.quantize(seen).export_model(str(at / "int8.tflite"), overwrite=True)
    interpreter = Interpreter(str(at / "int8.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def feed(x):
        scale, zero = source["quantization"]
        q = np.clip(np.round(x.transpose(0, 2, 3, 1) / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], q)

    def read():
        scale, zero = target["quantization"]
        return (interpreter.get_tensor(target["index"]).astype(np.float32) - zero) * scale

    return feed, interpreter.invoke, read


def onnxruntime(net, calibration, at):
    class Reader(ortq.CalibrationDataReader):
        rest = iter([{"image": x} for x in calibration])

        def get_next(self):
            return next(self.rest, None)

    ortq.quant_pre_process(str(net), str(at / "pre.onnx"))
    ortq.quantize_static(
        str(at / "pre.onnx"), str(at / "int8.onnx"), Reader(), quant_format=ortq.QuantFormat.QDQ, per_channel=True,
        activation_type=ortq.QuantType.QUInt8, weight_type=ortq.QuantType.QInt8,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(at / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_output(session.get_outputs()[0].name)
    return (
        lambda x: binding.bind_cpu_input("image", x),
        lambda: session.run_with_iobinding(binding),
        lambda: binding.copy_outputs_to_cpu()[0],
    )


def openvino(net, calibration, at):
    import nncf

    model = ov.convert_model(str(net))
    model.reshape([1, *calibration[0].shape[1:]])
    model = nncf.quantize(model, nncf.Dataset(calibration), subset_size=len(calibration))
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1})
    request = compiled.create_infer_request()
    kept = {}

    def feed(x):
        kept["x"] = ov.Tensor(np.ascontiguousarray(x), shared_memory=True)
        request.set_input_tensor(kept["x"])

    def run():
        request.start_async()
        request.wait()

    return feed, run, lambda: request.get_output_tensor().data


def empty(at, shape):
    """A network that does next to nothing: the mean over each channel."""
    info = onnx.helper.make_tensor_value_info
    x, y = (info(n, onnx.TensorProto.FLOAT, s) for n, s in (("image", shape), ("logits", [1, shape[1]])))
    small = onnx.helper.make_node("MaxPool", ["image"], ["m"], kernel_shape=[1, 1], strides=[16, 16])
    pool = onnx.helper.make_node("GlobalAveragePool", ["m"], ["p"])
    flat = onnx.helper.make_node("Flatten", ["p"], ["logits"])
    graph = onnx.helper.make_graph([small, pool, flat], "empty", [x], [y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), at / "empty.onnx")
    return at / "empty.onnx"


def timed(run, n):
    run()
    seconds = []
    for _ in range(n):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds


float_net = onnx.load(folder / "encoder.onnx")
channels, rows, columns = (d.dim_value for d in float_net.graph.input[0].type.tensor_type.shape.dim[1:])
pixels = np.fromfile(folder / "images.bin", np.uint8).reshape(-1, rows, columns, channels)
images = [np.ascontiguousarray(x[None].transpose(0, 3, 1, 2)).astype(np.float32) / 255 for x in pixels]
cut = folder / "logits.onnx"
float_net.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
onnx.save(float_net, folder / "one.onnx")
onnx.utils.extract_model(str(folder / "one.onnx"), str(cut), ["image"], ["logits"])
reference = ort.InferenceSession(str(cut), providers=["CPUExecutionProvider"])
truth = np.concatenate([reference.run(None, {"image": x})[0] for x in images])

peers, costs, found = {}, {}, []
for build in (litert, onnxruntime, openvino):
    name = build.__name__
    feed, run, read = build(empty(folder, [1, channels, rows, columns]), images[:4], folder)
    feed(images[0])
    costs[name] = float(np.median(timed(run, 2000)))
    feed, run, read = peers[name] = build(cut, images[:20], folder)
    logits = []
    for x in images:
        feed(x)
        run()
        logits.append(np.array(read()).reshape(-1))
    likeness = np.corrcoef(np.stack(logits).ravel(), truth.ravel())[0, 1]
    found.append(f"  {name}: logits correlate with float's at {likeness:.3f}, the binding costs {1e6 * costs[name]:.1f} us")

answers.write("ready\n")
for line in sys.stdin:
    name, n = line.split()
    seconds = [max(s - costs[name], 0.0) for s in timed(peers[name][1], int(n))]
    answers.write(" ".join(f"{s:.9f}" for s in seconds) + "\n")
answers.write(";".join(found) + ";\n")

"""The peers of `engine.rs`: a float ONNX classifier quantised by LiteRT's, ONNX Runtime's and OpenVINO's own tools, batch 1.

`engine.py prepare FOLDER`, with `encoder.onnx` and u8 NHWC images in `images.bin`, writes their int8 models there and prints
what was found of each, lines separated by `;`.

`engine.py time FOLDER THREADS PEER...` prints `ready`, then for every line `PEER N` the seconds of N inferences less what the
binding costs on an empty network. What instructions they use is for the environment to say (`ONEDNN_MAX_CPU_ISA`).

`engine.py run FOLDER PEER N` runs N inferences, to be counted by whoever started it.
"""

import os
import sys
import time
from pathlib import Path

PEERS = ("litert", "onnxruntime", "openvino")


class LiteRt:
    def __init__(self, stem, threads):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(f"{stem}.tflite", num_threads=threads)
        self.interpreter.allocate_tensors()
        (self.source,), (self.target,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.run = self.interpreter.invoke

    def feed(self, x):
        import numpy as np

        scale, zero = self.source["quantization"]
        q = np.clip(np.round(x.transpose(0, 2, 3, 1) / scale) + zero, -128, 127).astype(np.int8)
        self.interpreter.set_tensor(self.source["index"], q)

    def read(self):
        scale, zero = self.target["quantization"]
        return (self.interpreter.get_tensor(self.target["index"]).astype("float32") - zero) * scale


class OnnxRuntime:
    def __init__(self, stem, threads):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = ort.InferenceSession(f"{stem}.onnx", options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.binding.bind_output(self.session.get_outputs()[0].name)

    def feed(self, x):
        self.binding.bind_cpu_input("image", x)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def read(self):
        return self.binding.copy_outputs_to_cpu()[0]


class OpenVino:
    def __init__(self, stem, threads):
        import openvino as ov

        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        self.tensor = ov.Tensor
        self.request = ov.Core().compile_model(f"{stem}.xml", "CPU", settings).create_infer_request()

    def feed(self, x):
        import numpy as np

        self.x = self.tensor(np.ascontiguousarray(x), shared_memory=True)
        self.request.set_input_tensor(self.x)

    def run(self):
        self.request.start_async()
        self.request.wait()

    def read(self):
        return self.request.get_output_tensor().data


KINDS = dict(zip(PEERS, (LiteRt, OnnxRuntime, OpenVino)))


def quantise(net, stem, calibration):
    """Each peer's int8 model of a float ONNX network, by its own tools."""
    import litert_torch
    import nncf
    import numpy as np
    import onnx
    import onnx2torch
    import onnxruntime.quantization as ortq
    import openvino as ov
    import torch
    from ai_edge_quantizer import quantizer, recipe

    module = litert_torch.to_channel_last_io(onnx2torch.convert(onnx.load(net)).eval(), args=[0])
    nhwc = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in calibration]
    litert_torch.convert(module, (torch.from_numpy(nhwc[0]),)).export(f"{stem}.float.tflite")
    q = quantizer.Quantizer(f"{stem}.float.tflite", recipe.static_wi8_ai8())
    seen = q.calibrate({"serving_default": [{"args_0": x} for x in nhwc]})
    q.quantize(seen).export_model(f"{stem}.tflite", overwrite=True)

    class Reader(ortq.CalibrationDataReader):
        rest = iter([{"image": x} for x in calibration])

        def get_next(self):
            return next(self.rest, None)

    ortq.quant_pre_process(str(net), f"{stem}.pre.onnx")
    ortq.quantize_static(
        f"{stem}.pre.onnx", f"{stem}.onnx", Reader(), quant_format=ortq.QuantFormat.QDQ, per_channel=True,
        activation_type=ortq.QuantType.QUInt8, weight_type=ortq.QuantType.QInt8,
    )

    model = ov.convert_model(str(net))
    model.reshape([1, *calibration[0].shape[1:]])
    ov.save_model(nncf.quantize(model, nncf.Dataset(calibration), subset_size=len(calibration)), f"{stem}.xml")


def empty(at, shape):
    """A network that does next to nothing: the mean over each channel."""
    import onnx

    info = onnx.helper.make_tensor_value_info
    x, y = (info(n, onnx.TensorProto.FLOAT, s) for n, s in (("image", shape), ("logits", [1, shape[1]])))
    small = onnx.helper.make_node("MaxPool", ["image"], ["m"], kernel_shape=[1, 1], strides=[16, 16])
    pool = onnx.helper.make_node("GlobalAveragePool", ["m"], ["p"])
    flat = onnx.helper.make_node("Flatten", ["p"], ["logits"])
    graph = onnx.helper.make_graph([small, pool, flat], "empty", [x], [y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), at)


def images(folder):
    """Pictures as each peer's float network takes them."""
    import numpy as np

    shape = [int(n) for n in (folder / "shape.txt").read_text().split()]
    pixels = np.fromfile(folder / "images.bin", np.uint8).reshape(-1, *shape)
    return [np.ascontiguousarray(x[None].transpose(0, 3, 1, 2)).astype(np.float32) / 255 for x in pixels]


def prepare(folder):
    os.environ["GLOG_minloglevel"] = os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(folder / "peers.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    import logging

    import numpy as np
    import onnx
    import onnxruntime as ort

    logging.disable(logging.WARNING)
    net = onnx.load(folder / "encoder.onnx")
    channels, rows, columns = (d.dim_value for d in net.graph.input[0].type.tensor_type.shape.dim[1:])
    (folder / "shape.txt").write_text(f"{rows} {columns} {channels}")
    pictures = images(folder)
    net.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(net, folder / "one.onnx")
    cut = folder / "logits.onnx"
    onnx.utils.extract_model(str(folder / "one.onnx"), str(cut), ["image"], ["logits"])
    empty(folder / "nothing.onnx", [1, channels, rows, columns])
    quantise(folder / "nothing.onnx", folder / "empty", pictures[:4])
    quantise(cut, folder / "int8", pictures[:20])
    reference = ort.InferenceSession(str(cut), providers=["CPUExecutionProvider"])
    truth = np.concatenate([reference.run(None, {"image": x})[0] for x in pictures])
    for name, kind in KINDS.items():
        peer = kind(folder / "int8", 1)
        logits = []
        for x in pictures:
            peer.feed(x)
            peer.run()
            logits.append(np.array(peer.read()).reshape(-1))
        likeness = np.corrcoef(np.stack(logits).ravel(), truth.ravel())[0, 1]
        answers.write(f"  {name}: logits correlate with float's at {likeness:.3f};")
    answers.write("\n")


def timed(run, n):
    run()
    seconds = []
    for _ in range(n):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds


def answer(folder, threads, names):
    pictures = images(folder)
    peers, costs = {}, {}
    for name in names:
        nothing = KINDS[name](folder / "empty", threads)
        nothing.feed(pictures[0])
        costs[name] = sorted(timed(nothing.run, 2000))[1000]
        peers[name] = KINDS[name](folder / "int8", threads)
        peers[name].feed(pictures[0])
    print("ready", flush=True)
    for line in sys.stdin:
        name, n = line.split()
        seconds = [max(s - costs[name], 0.0) for s in timed(peers[name].run, int(n))]
        print(" ".join(f"{s:.9f}" for s in seconds), flush=True)
    print(";".join(f"  {name}: the binding costs {1e6 * cost:.1f} us" for name, cost in costs.items()), flush=True)


def run(folder, name, n):
    peer = KINDS[name](folder / "int8", 1)
    peer.feed(images(folder)[0])
    for _ in range(n):
        peer.run()


task, folder, *rest = sys.argv[1:]
if task == "prepare":
    prepare(Path(folder))
elif task == "time":
    answer(Path(folder), int(rest[0]), rest[1:])
else:
    run(Path(folder), rest[0], int(rest[1]))

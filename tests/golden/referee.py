#!/usr/bin/env python3
"""The outside referee: ONNX's checker, and ONNX Runtime with graph optimisations off.

    referee.py check FILE...        onnx.checker on each file
    referee.py int8 DIR             DIR/model.onnx against the engine's tensors a<i>.i8, mu.f32, s.f32, logits.f32
    referee.py float DIR            DIR/model.onnx against mu.f32, log_sigma.f32, logits.f32, within 1e-4
    referee.py classes FILE DIR     argmax of logits against classes.u8, all images

DIR/case.json holds n, input [h, w, c] and activations [[h, w, c], ...]; DIR/images.u8 holds n images in NHWC order.
Exit status 0 only if everything that was asked for was compared and holds. Versions: requirements.txt beside this file.
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

BOUND = 1e-4


def runner(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def images(folder, case):
    h, w, c = case["input"]
    raw = np.fromfile(folder / "images.u8", np.uint8).reshape(case["n"], h, w, c)
    return (raw.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)), raw


def close(name, got, expected):
    gap = np.max(np.abs(got - expected) / np.maximum(1.0, np.abs(expected)))
    if not gap <= BOUND:
        raise SystemExit(f"{name}: off by {gap}, allowed {BOUND}")
    print(f"{name}: within {gap:.2e}")


def int8(folder):
    case = json.loads((folder / "case.json").read_text())
    model = onnx.load(str(folder / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    x, raw = images(folder, case)
    names = [f"a{i}" for i in range(len(case["activations"]))]
    for name in names + ["s"]:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    run = runner(model)
    outputs = [o.name for o in run.get_outputs()]
    seen = dict(zip(outputs, run.run(None, {"image": x})))
    if not np.array_equal(seen["a0"].transpose(0, 2, 3, 1), (raw.astype(np.int16) - 128).astype(np.int8)):
        raise SystemExit("the image is not u8 - 128")
    compared = 0
    for i, (name, (h, w, c)) in enumerate(zip(names, case["activations"])):
        if i == 0:
            continue
        mine = np.fromfile(folder / f"{name}.i8", np.int8).reshape(case["n"], h, w, c)
        theirs = seen[name].transpose(0, 2, 3, 1)
        if theirs.shape != mine.shape or not np.array_equal(theirs, mine):
            wrong = np.count_nonzero(theirs != mine) if theirs.shape == mine.shape else "shape"
            raise SystemExit(f"{name}: {wrong} of {mine.size} differ")
        compared += mine.size
    for name in ["mu", "s"]:
        mine = np.fromfile(folder / f"{name}.f32", np.float32).reshape(seen[name].shape)
        if not np.array_equal(mine, seen[name]):
            raise SystemExit(f"{name} differs")
        compared += mine.size
    logits = np.fromfile(folder / "logits.f32", np.float32).reshape(seen["logits"].shape)
    close("logits", seen["logits"], logits)
    if compared == 0:
        raise SystemExit("nothing was compared")
    print(f"{compared} values equal in {len(names) - 1} tensors of {case['n']} images")


def floats(folder):
    case = json.loads((folder / "case.json").read_text())
    model = onnx.load(str(folder / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    x, _ = images(folder, case)
    names = ["mu", "sigma", "log_sigma", "logits"]
    for name, got in zip(names, runner(model).run(names, {"image": x})):
        if name == "sigma":
            expected = np.exp(np.fromfile(folder / "log_sigma.f32", np.float32).astype(np.float64))
        else:
            expected = np.fromfile(folder / f"{name}.f32", np.float32)
        close(name, got, expected.reshape(got.shape))


def classes(file, folder):
    case = json.loads((folder / "case.json").read_text())
    x, _ = images(folder, case)
    logits = runner(onnx.load(str(file))).run(["logits"], {"image": x})[0]
    mine = np.fromfile(folder / "classes.u8", np.uint8)
    same = int(np.count_nonzero(logits.argmax(1) == mine))
    print(f"{same} of {case['n']} classes equal")
    if same != case["n"] or case["n"] == 0:
        raise SystemExit("classes differ")


def events(run):
    """TensorBoard's own reader sees every epoch's numbers."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    reader = EventAccumulator(str(run))
    reader.Reload()
    for tag, pick in [
        ("train/total", lambda line: line["train"]["total"]),
        ("validation/clean_percent", lambda line: line["validation"]["clean_percent"]),
    ]:
        got = [event.value for event in reader.Scalars(tag)]
        expected = [np.float32(pick(line)) for line in lines]
        print(f"{tag}: {got}")
        if got != expected or not got:
            raise SystemExit(f"{tag}: {expected} expected")


def main():
    mode, paths = sys.argv[1], [Path(p) for p in sys.argv[2:]]
    if mode == "check":
        for path in paths:
            onnx.checker.check_model(onnx.load(str(path)), full_check=True)
            print(f"{path.name}: checked")
    elif mode == "int8":
        int8(paths[0])
    elif mode == "float":
        floats(paths[0])
    elif mode == "classes":
        classes(*paths)
    elif mode == "events":
        events(paths[0])
    else:
        raise SystemExit(f"unknown mode {mode}")


main()

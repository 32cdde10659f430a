"""AutoAttack by torchattacks on an exported encoder: the peer of autoattack.rs.

    python autoattack.py FOLDER EPS THREADS WHAT

FOLDER holds encoder.onnx, images.u8 (NHWC), labels.u16 and shape.json [n, h, w, c]. WHAT is `standard`, AutoAttack's four
attacks with 100 steps each (torchattacks' own default is 10 for three of them) on the survivors of those before, or one of
`apgd-ce` and `square` alone. Prints one JSON line: which images fell, and the seconds it took.
"""

import json
import pathlib
import sys
import time

import numpy as np
import onnx
import onnx2torch
import torch
import torchattacks


class Logits(torch.nn.Module):
    """The first output of the exported encoder."""

    def __init__(self, path):
        super().__init__()
        self.net = onnx2torch.convert(onnx.load(path)).eval().requires_grad_(False)

    def forward(self, x):
        return self.net(x)[0]


def attacks(model, eps, what):
    apgd = torchattacks.APGD(model, eps=eps, steps=100, loss="ce", seed=0)
    square = torchattacks.Square(model, eps=eps, n_queries=5000, seed=0)
    if what == "apgd-ce":
        return apgd
    if what == "square":
        return square
    targeted = torchattacks.APGDT(model, eps=eps, steps=100, n_classes=10, seed=0)
    fab = torchattacks.FAB(model, eps=eps, steps=100, multi_targeted=True, n_classes=10, seed=0)
    return torchattacks.MultiAttack([apgd, targeted, fab, square])


def main():
    folder, eps, threads, what = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    n, h, w, c = json.loads((folder / "shape.json").read_text())
    images = np.fromfile(folder / "images.u8", np.uint8).reshape(n, h, w, c).transpose(0, 3, 1, 2)
    images = torch.from_numpy(images.astype(np.float32) / np.float32(255)).contiguous()
    labels = torch.from_numpy(np.fromfile(folder / "labels.u16", "<u2").astype(np.int64))
    model = Logits(folder / "encoder.onnx")
    with torch.no_grad():
        clean = model(images).argmax(1) == labels
    attack = attacks(model, eps, what)
    began = time.perf_counter()
    # Images that are wrong as they are need no attack; ours skips them too.
    points = images.clone()
    points[clean] = attack(images[clean], labels[clean])
    seconds = time.perf_counter() - began
    with torch.no_grad():
        broken = model(points).argmax(1) != labels
    assert (points - images).abs().max() <= eps * (1 + 1e-5)
    print(json.dumps({"clean": int(clean.sum()), "broken": broken.tolist(), "seconds": seconds}))


main()

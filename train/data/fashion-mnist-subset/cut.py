#!/usr/bin/env python3
"""Cuts the embedded subset out of the full Fashion-MNIST (IDX gz files), stratified and seeded.

    python3 cut.py [/usr/share/datasets/fashion-mnist]

Training and calibration images come from the 60,000 training images, without overlap; test images from the 10,000
test images. Within each class images are drawn by a seeded shuffle and keep their original order in the files.
"""
import gzip
import random
import struct
import sys
from pathlib import Path

SEED = 20200713
TRAIN, CALIBRATION, TEST = 1200, 100, 200  # per class, ten classes
HERE = Path(__file__).parent


def read(path):
    data = gzip.open(path).read()
    dims = struct.unpack_from(f">{data[3]}I", data, 4)
    body = data[4 + 4 * data[3]:]
    size = len(body) // dims[0]
    return [body[i * size:(i + 1) * size] for i in range(dims[0])]


def write(path, items, dims):
    head = struct.pack(f">HBB{len(dims) + 1}I", 0, 8, len(dims) + 1, len(items), *dims)
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        out.write(head + b"".join(items))


def draw(images, labels, counts, rng):
    splits = [[] for _ in counts]
    for digit in range(10):
        mine = [i for i, l in enumerate(labels) if l[0] == digit]
        rng.shuffle(mine)
        for split, count in zip(splits, counts):
            split += mine[:count]
            mine = mine[count:]
    return [sorted(split) for split in splits]


def main():
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
    rng = random.Random(SEED)
    for stem, names, counts in [("train", ["train", "calibration"], [TRAIN, CALIBRATION]), ("t10k", ["test"], [TEST])]:
        images = read(source / f"{stem}-images-idx3-ubyte.gz")
        labels = read(source / f"{stem}-labels-idx1-ubyte.gz")
        for name, picks in zip(names, draw(images, labels, counts, rng)):
            write(HERE / f"{name}-images-idx3-ubyte.gz", [images[i] for i in picks], (28, 28))
            write(HERE / f"{name}-labels-idx1-ubyte.gz", [labels[i] for i in picks], ())
            print(name, len(picks))


main()

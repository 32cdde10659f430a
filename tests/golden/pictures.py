"""Pictures of every kind, and what they must become by another route: Pillow's decoders, orientation and float resize.

`pictures.py FOLDER` writes 500 files to FOLDER/all (formats, colours, orientations, alpha, sizes from 1 x 1 to 4000 x 30) and
FOLDER/truth.f32 with FOLDER/truth.json: for each, name, tolerance and the expected inputs of three policies, f32 in HWC order.
FOLDER/cut holds files that break off, by a name that says what they are of.
"""
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

folder = Path(sys.argv[1])
rng = np.random.default_rng(3)
(folder / "all").mkdir(parents=True)
(folder / "cut").mkdir()


def pattern(w, h, c):
    """Smooth enough for a lossy format to come close, different in every corner."""
    x, y = np.meshgrid(np.arange(w) / max(w, 8), np.arange(h) / max(h, 8))
    waves = [128 + 100 * np.sin(rng.uniform(1, 7) * x + rng.uniform(1, 7) * y + rng.uniform(0, 6)) for _ in range(c)]
    return np.clip(np.stack(waves, -1), 0, 255).astype(np.uint8)


def squeezed(a):
    return a[..., 0] if a.shape[-1] == 1 else a


def seen(image):
    """u8 RGB over black, upright, as float64 [h][w][3]."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.repeat(np.round(np.asarray(image).astype(np.float64) / 257)[..., None], 3, -1)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "LA":
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        a = np.asarray(image).astype(np.float64)
        return np.round(a[..., :3] * a[..., 3:] / 255)
    return np.asarray(image.convert("RGB")).astype(np.float64)


def triangle(size, out):
    """Rows of weights [out][size] of a triangle that widens where it shrinks."""
    scale = size / out
    centre = (np.arange(out) + 0.5) * scale
    w = np.maximum(0, 1 - np.abs((np.arange(size) + 0.5)[None] - centre[:, None]) / max(scale, 1))
    return w / w.sum(1, keepdims=True)


def resized(a, h, w):
    return np.einsum("ij,jkc,lk->ilc", triangle(a.shape[0], h), a, triangle(a.shape[1], w), optimize=True)


def luma(a):
    return (0.299 * a[..., :1] + 0.587 * a[..., 1:2] + 0.114 * a[..., 2:3])


def middle(a, h, w):
    y, x = (a.shape[0] - h) // 2, (a.shape[1] - w) // 2
    return a[y : y + h, x : x + w]


def half_up(a, b, c):
    return max(1, (a * b + c // 2) // c)


def inputs(a):
    """Stretched to 32 x 32 colour; 0.875 of the middle as 28 x 28 luma; a letter-box of 20 x 48, inverted."""
    h, w = a.shape[:2]
    stretched = resized(a, 32, 32)
    side = min(h, w)
    kept = min(side, half_up(side, 8750, 10000))
    cropped = resized(luma(middle(a, kept, kept)), 28, 28)
    boxed = np.zeros((20, 48, 3))
    if h * 48 > w * 20:
        oh, ow = 20, min(48, half_up(w, 20, h))
    else:
        oh, ow = min(20, half_up(h, 48, w)), 48
    y, x = (20 - oh) // 2, (48 - ow) // 2
    boxed[y : y + oh, x : x + ow] = resized(255 - a, oh, ow)
    return [stretched, cropped, boxed]


listed, truth = [], []
sizes = [(1, 1), (1, 40), (33, 1), (2, 3), (7, 7), (8, 8), (28, 28), (32, 32), (31, 33), (64, 48), (100, 75), (96, 32)]
sizes += [(200, 150), (17, 230), (333, 222), (4000, 30), (30, 4000)]
kinds = ["jpeg", "jpeg-gray", "jpeg-progressive", "jpeg-turned", "jpeg-cmyk", "png", "png-gray", "png-alpha", "png-gray-alpha"]
kinds += ["png-16", "png-palette", "webp", "webp-alpha", "tiff", "tiff-turned", "bmp", "gif", "ppm", "pgm", "tga", "ico", "webp-lossy"]
n = 0
while n < 500:
    kind = kinds[n % len(kinds)]
    w, h = sizes[(n // len(kinds)) % len(sizes)] if n < len(kinds) * len(sizes) else rng.integers(1, 300, 2).tolist()
    if kind == "ico":
        w, h = min(w, 200), min(h, 200)
    channels = {"jpeg-gray": 1, "jpeg-cmyk": 4, "png-gray": 1, "png-alpha": 4, "png-gray-alpha": 2, "webp-alpha": 4, "pgm": 1}
    a = pattern(w, h, channels.get(kind, 3))
    opaque = kind not in ("png-alpha", "png-gray-alpha", "webp-alpha")
    save, tolerance, ending = {}, 1.0, kind.split("-")[0]
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "CMYK" if kind == "jpeg-cmyk" else "RGBA"}
    image = Image.fromarray(squeezed(a), modes[a.shape[-1]])
    if kind.startswith("jpeg"):
        tolerance = 4.0
        save = dict(quality=int(rng.choice([60, 75, 90])), progressive=kind == "jpeg-progressive")
        if a.shape[-1] == 3:
            save["subsampling"] = int(rng.integers(0, 3))
        if rng.random() < 0.3:
            save["restart_marker_blocks"] = 2
    if kind == "jpeg-cmyk":
        tolerance = 6.0
    if kind.endswith("turned"):
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(1, 9))
        save["exif"] = exif
    if kind == "png-16":
        image = Image.fromarray(a[..., 0].astype(np.uint16) * 257 - rng.integers(0, 2, (h, w)).astype(np.uint16) * (a[..., 0] > 0))
    if kind in ("png-palette", "gif"):
        image = image.quantize(32)
        # Palettes of both files are what is decoded, not the picture before.
    if kind == "webp":
        save["lossless"] = True
    if kind == "webp-alpha":
        save.update(lossless=True, exact=True)
    if kind == "webp-lossy":
        tolerance = 6.0
    path = folder / "all" / f"{n:03}-{kind}-{w}x{h}.{ending}"
    if kind == "ico":
        image.save(path, sizes=[(w, h)], bitmap_format="png")
    elif kind == "tga":
        image.save(path, compression="tga_rle" if n % 2 else None)
    else:
        image.save(path, **save)
    reread = Image.open(path)
    reread.load()
    listed.append(dict(name=path.name, tolerance=tolerance, opaque=opaque))
    truth += [i.astype(np.float32).ravel() for i in inputs(seen(reread))]
    data = path.read_bytes()
    if n % 7 == 0 and len(data) > 200 and kind.startswith(("jpeg", "png", "webp", "bmp", "gif", "tga", "tiff", "ppm")):
        (folder / "cut" / f"{path.stem}-third.{ending}").write_bytes(data[: len(data) * 3 // 10])
        (folder / "cut" / f"{path.stem}-most.{ending}").write_bytes(data[: len(data) * 9 // 10])
    if kind.startswith("jpeg"):
        # A picture that is whole but for its end marker is a picture, one that was cut and then closed is not.
        (folder / "cut" / f"{path.stem}-whole.{ending}").write_bytes(data[:-2])
        start = data.index(b"\xff\xda")
        if not save["progressive"] and len(data) - start > 60:
            (folder / "cut" / f"{path.stem}-closed.{ending}").write_bytes(data[: (start + 2 * len(data)) // 3] + b"\xff\xd9")
    n += 1

np.concatenate(truth).tofile(folder / "truth.f32")
(folder / "truth.json").write_text(json.dumps(listed))

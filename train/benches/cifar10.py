"""The peer of `train/configs/cifar10-resnet20-standard.toml`: the same recipe in PyTorch.

python cifar10.py DIR SEED [EPOCHS]: trains on 44,000 of the pictures in DIR/train, prints the accuracy on DIR/test.
Needs requirements.txt and Pillow.
"""

import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from step import ResNet


def read(folder):
    """Images u8 [n, 3, 32, 32] and labels; classes are the sorted folder names."""
    images, labels = [], []
    for label, name in enumerate(sorted(os.listdir(folder))):
        for file in sorted(os.listdir(os.path.join(folder, name))):
            images.append(np.asarray(Image.open(os.path.join(folder, name, file)).convert("RGB")))
            labels.append(label)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def one_cycle(peak, step, steps):
    start, end, share = peak / 25, peak / 250_000, step / steps
    cosine = lambda a, b, t: b + (a - b) * 0.5 * (1 + math.cos(math.pi * t))
    return cosine(start, peak, share / 0.3) if share < 0.3 else cosine(peak, end, (share - 0.3) / 0.7)


def augment(images):
    """Padded by 4 black pixels and cropped, mirrored; each image on its own."""
    n = len(images)
    padded = F.pad(images, (4, 4, 4, 4))
    out = torch.empty_like(images)
    for i, (dy, dx, flip) in enumerate(torch.stack([torch.randint(0, 9, (n,)), torch.randint(0, 9, (n,)), torch.randint(0, 2, (n,))], 1).tolist()):
        crop = padded[i, :, dy : dy + 32, dx : dx + 32]
        out[i] = crop.flip(2) if flip else crop
    return out


def main():
    folder, seed = sys.argv[1], int(sys.argv[2])
    epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    torch.manual_seed(seed)
    images, labels = read(os.path.join(folder, "train"))
    test_images, test_labels = read(os.path.join(folder, "test"))
    kept = torch.randperm(len(images))[:44_000]
    images, labels = images[kept], labels[kept]
    net = ResNet([16, 32, 64], 3, 64).to(memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=0.2, momentum=0.9, nesterov=True)
    each, step, began = len(images) // 128, 0, time.time()
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(images))
        for k in range(each):
            for group in optimiser.param_groups:
                group["lr"] = one_cycle(0.2, step, each * epochs)
            ids = order[128 * k : 128 * (k + 1)]
            x = (augment(images[ids]).float() / 255).contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad()
            F.cross_entropy(net(x), labels[ids]).backward()
            optimiser.step()
            step += 1
        net.eval()
        with torch.no_grad():
            right = sum(
                (net(test_images[i : i + 500].float() / 255).argmax(1) == test_labels[i : i + 500]).sum().item()
                for i in range(0, len(test_images), 500)
            )
        print(f"seed {seed} epoch {epoch + 1}: {100 * right / len(test_images):.2f} % ({time.time() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

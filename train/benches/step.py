"""The peer of `step.rs`: the same training step in PyTorch, channels_last.

python step.py NET THREADS: runs on the CPU, `THREADS-bf16` in bf16 (autocast); `f32`, `tf32` or `bf16` in the place of
THREADS runs on the GPU.
Prints "ready"; then for each line on standard input, a number N, runs N + 1 steps
and prints the seconds of the last N; at the end of input, the peak resident memory in MiB.
"""

import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Pre-activation residual block; 1x1 shortcut of the activated input where extents change."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changed = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changed else None

    def forward(self, x):
        a = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(a)
        return self.conv2(F.relu(self.norm2(self.conv1(a)))) + shortcut


class ResNet(nn.Module):
    def __init__(self, widths, blocks, latent):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        layers, inputs = [], 16
        for group, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(inputs, width, 2 if group > 0 and block == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(inputs)
        self.mu = nn.Linear(inputs, latent)
        self.classifier = nn.Linear(latent, 10)
        self.register_buffer("mean", torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1))

    def forward(self, x):
        x = (x - self.mean) / self.std
        features = F.relu(self.norm(self.blocks(self.stem(x)))).mean((2, 3))
        return self.classifier(self.mu(features))


class SmallConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 5, 2, 2)
        self.conv2 = nn.Conv2d(24, 48, 3, 2, 1)
        self.dense = nn.Linear(48 * 7 * 7, 128)
        self.mu = nn.Linear(128, 32)
        self.classifier = nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.classifier(self.mu(F.relu(self.dense(x.flatten(1)))))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU())
        self.mu = nn.Linear(1000, 2)
        self.classifier = nn.Linear(2, 10)

    def forward(self, x):
        return self.classifier(self.mu(self.body(x.flatten(1))))


NETS = {
    "small-conv": (SmallConv, (128, 1, 28, 28)),
    "mlp-1000": (Mlp, (128, 1, 28, 28)),
    "resnet-8": (lambda: ResNet([16, 32, 64], 1, 64), (128, 3, 32, 32)),
    "resnet-20": (lambda: ResNet([16, 32, 64], 3, 64), (128, 3, 32, 32)),
    "wrn-16-4": (lambda: ResNet([64, 128, 256], 2, 128), (128, 3, 32, 32)),
    "wrn-28-10": (lambda: ResNet([160, 320, 640], 4, 128), (128, 3, 32, 32)),
}


def main():
    name, how = sys.argv[1:]
    threads, _, precision = how.rpartition("-")
    if how.isdigit():
        threads, precision = how, "f32"
    on_gpu = not threads
    device = "cuda" if on_gpu else "cpu"
    if on_gpu:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "f32"
    else:
        torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    make, shape = NETS[name]
    net = make().to(device, memory_format=torch.channels_last)
    images = torch.rand(shape).to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (shape[0],)).to(device)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def step():
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimiser.step()

    def measure(n):
        """Seconds of each of n steps; on the GPU, where steps are queued, their mean n times."""
        if on_gpu:
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(n):
                step()
            torch.cuda.synchronize()
            return [(time.perf_counter() - began) / n] * n
        seconds = []
        for _ in range(n):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        return seconds

    step()
    print("ready", flush=True)
    for line in sys.stdin:
        step()
        print(" ".join(map(str, measure(int(line)))), flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


if __name__ == "__main__":
    main()

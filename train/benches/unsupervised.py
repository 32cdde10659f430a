"""The peer of `train/configs/fashion-mnist-mlp-unsupervised.toml`: algorithm 2 of the supplement in PyTorch.

python unsupervised.py DIR EPOCHS SEED: trains on 54,000 images of the IDX files in DIR, prints the mean loss of each
epoch and of 1,000 held-out images. Needs requirements.txt.
"""

import gzip
import math
import os
import sys
import time

import numpy as np
import torch
from torch import nn


def images(folder):
    with gzip.open(os.path.join(folder, "train-images-idx3-ubyte.gz")) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784).copy())


class Net(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU())
        self.mu, self.s = nn.Linear(1000, d), nn.Linear(1000, d)
        self.decoder = nn.Sequential(
            nn.Linear(d, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 784)
        )


def loss(net, x, alpha):
    h = net.body(x)
    mu, log_sigma = net.mu(h), -nn.functional.softplus(-net.s(h))
    z = mu + torch.randn_like(mu) * log_sigma.exp()
    m, d = mu.shape
    entropy = (0.5 * math.log(2 * math.pi) + 0.5 + log_sigma).sum(1).mean()
    means, logs = mu.detach(), log_sigma.detach()
    # log N(z_i; mu_j, sigma_j^2) for all pairs, the own one left out.
    u = (z[:, None] - means[None]) / logs.exp()[None]
    density = (-0.5 * u * u - logs[None] - 0.5 * math.log(2 * math.pi)).sum(2)
    density = density.masked_fill(torch.eye(m, dtype=torch.bool), -math.inf)
    rate = -entropy - torch.logsumexp(density, 1).mean() + math.log(m - 1)
    distortion = ((net.decoder(z) - x) ** 2).sum(1).mean()
    return distortion + alpha * rate


def main():
    folder, epochs, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.manual_seed(seed)
    data = images(folder)[torch.randperm(60_000)]
    train, held = data[:54_000], data[54_000:55_000]
    net = Net(2)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-4)
    for epoch in range(epochs):
        began, total, order = time.time(), 0.0, torch.randperm(len(train))
        steps = len(train) // 128
        for k in range(steps):
            optimiser.zero_grad()
            value = loss(net, train[order[128 * k : 128 * (k + 1)]].float() / 255, 1e-3)
            value.backward()
            optimiser.step()
            total += value.item()
        with torch.no_grad():
            held_loss = np.mean([loss(net, held[i : i + 128].float() / 255, 1e-3).item() for i in range(0, 896, 128)])
        print(f"epoch {epoch + 1}: train {total / steps:.3f}, held out {held_loss:.3f} ({time.time() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main()

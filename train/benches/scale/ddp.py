"""One rank of PyTorch's DistributedDataParallel over gloo, the peer of `scale.py`.

python ddp.py NET RANK RANKS ADDRESS PORT STEPS: one thread; a mini-batch of 128 is shared among the ranks. The first one prints the
median seconds of a step.
"""

import os
import statistics
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as distributed
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))
from step import NETS  # noqa: E402


def main():
    name, rank, ranks, address, port, steps = sys.argv[1:]
    rank, ranks, steps = int(rank), int(ranks), int(steps)
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=port)
    distributed.init_process_group("gloo", rank=rank, world_size=ranks, timeout=timedelta(seconds=120))
    torch.manual_seed(0)
    make, shape = NETS[name]
    # Batch statistics of the whole mini-batch, as ours are, is what gloo has no operation for: each rank has its own.
    net = torch.nn.parallel.DistributedDataParallel(make().to(memory_format=torch.channels_last))
    own = shape[0] // ranks
    images = torch.rand((own, *shape[1:])).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (own,))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    seconds = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        optimiser.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(statistics.median(seconds[2:]), flush=True)
    distributed.destroy_process_group()


main()

"""Seconds of a training step on several ranks, beside one process and beside PyTorch's DistributedDataParallel: `make bench-scale`.

python scale.py TRAIN PYTHON [NET...]: TRAIN is a trainer with MPI, PYTHON has torch. Each number is the median of rounds in which all take
turns. With root, `ip` and `tc`, ranks also run in network namespaces whose links have a rate. Ends with lines `ratio NAME OURS/PEER`.
"""

import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BATCH, STEPS, ROUNDS = 128, 6, 3
RATES = ["1gbit", "10gbit"]
LAUNCHER = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def pictures(folder):
    """Noise in the form of CIFAR-10's binary release: ten classes in turn."""
    folder.mkdir()
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        records = (bytes([i % 10]) + random.randbytes(3072) for i in range(200))
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    (folder / "batches.meta.txt").write_text("".join(f"class-{c}\n" for c in range(10)))


def settings(net, data):
    latent = {"wrn-16-4": 128, "wrn-28-10": 128}.get(net, 64)
    values = {
        "data.source": "cifar10", "data.folder": str(data), "data.validation": 10, "data.calibration": 20, "data.shift": 0, "data.flip": False,
        "encoder.kind": net, "encoder.latent": latent, "objective.kind": "standard", "fit.epochs": 2,
        "fit.batch": BATCH, "fit.optimiser": "sgd", "fit.momentum": 0.9, "fit.weight_decay": 1e-4, "fit.peak_rate": 0.01,
        "fit.select": "clean", "data.train_images": BATCH * STEPS + 10,
    }
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


class Ours:
    """`train fit` on so many ranks of so many threads, in network namespaces if asked."""

    def __init__(self, train, config, data):
        self.train, self.config, self.data = train, config, data

    def step(self, net, ranks, threads, apart=False):
        """Seconds of a step, and what ranks told each other."""
        with tempfile.TemporaryDirectory() as home:
            run = Path(home) / "run"
            command = [self.train, "fit", "--config", str(self.config), *settings(net, self.data), "--out", str(run)]
            env = {**os.environ, **LAUNCHER, "RAYON_NUM_THREADS": str(threads)}
            idle = ["--mca", "mpi_yield_when_idle", "1"] if ranks > os.cpu_count() else []
            launch = ["mpirun", *idle, "--bind-to", "none", "--oversubscribe", "-x", "RAYON_NUM_THREADS", "-n", str(ranks)]
            if apart:
                hosts = ",".join(f"10.77.0.{r + 1}:1" for r in range(ranks))
                net_only = ["btl", "self,tcp", "btl_tcp_if_include", "10.77.0.0/24", "oob_tcp_if_include", "10.77.0.0/24"]
                launch += ["--host", hosts, "--mca", "plm_rsh_agent", str(HERE / "agent.sh")]
                launch += [part for i in range(0, 6, 2) for part in ["--mca", *net_only[i : i + 2]]]
                launch = ["ip", "netns", "exec", "scale1", "unshare", "--uts", "sh", "-c", 'hostname scale1; exec "$@"', "sh", *launch]
            outcome = subprocess.run([*launch, *command] if ranks > 1 else command, env=env, capture_output=True, text=True)
            if outcome.returncode:
                sys.exit(f"{' '.join(command)}: {outcome.stdout}{outcome.stderr}")
            exchange = run / "exchange.jsonl"
            if exchange.exists():
                last = json.loads(exchange.read_text().splitlines()[-1])
                return last["seconds_a_step"], last
            # With a validation of ten images.
            return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["seconds"] / STEPS, None


def ddp(python, net, ranks, apart=False):
    """Seconds of a step of PyTorch on so many ranks of one thread."""
    address, port = ("10.77.0.1" if apart else "127.0.0.1"), str(20_000 + os.getpid() % 10_000)
    children = []
    for rank in range(ranks):
        command = [python, str(HERE / "ddp.py"), net, str(rank), str(ranks), address, port, str(STEPS)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        if apart:
            env["GLOO_SOCKET_IFNAME"] = "wire"
            command = ["ip", "netns", "exec", f"scale{rank + 1}", *command]
        children.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        sys.exit("PyTorch failed")
    return float(outputs[0])


@contextlib.contextmanager
def namespaces(n):
    """Network namespaces scale1... behind one switch, each with a link of its own."""
    call = lambda *words: subprocess.run(["ip", *words], check=True, capture_output=True)
    names = [f"scale{r + 1}" for r in range(n)]

    def remove():
        for name in ["scale0", *names]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    remove()
    try:
        call("netns", "add", "scale0")
        call("-n", "scale0", "link", "add", "switch", "type", "bridge")
        call("-n", "scale0", "link", "set", "switch", "up")
        for r, name in enumerate(names):
            call("netns", "add", name)
            call("-n", name, "link", "add", "wire", "type", "veth", "peer", "name", f"port{r}", "netns", "scale0")
            call("-n", "scale0", "link", "set", f"port{r}", "master", "switch", "up")
            call("-n", name, "addr", "add", f"10.77.0.{r + 1}/24", "dev", "wire")
            call("-n", name, "link", "set", "wire", "up")
            call("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        remove()


def limit(names, rate):
    """The rate at which each namespace sends."""
    for name in names:
        words = ["qdisc", "replace", "dev", "wire", "root", "tbf", "rate", rate, "burst", "1mb", "latency", "50ms"]
        subprocess.run(["tc", "-n", name, *words], check=True)


def show(net, how, seconds, exchange):
    told = ""
    if exchange:
        told = f"{1e3 * exchange['exchange_seconds_a_step']:9.1f} {exchange['bytes_a_step'] / 1e6:9.2f}"
    print(f"{net:10} {how:34} {1e3 * seconds:9.1f} {told}", flush=True)


def medians(net, sides):
    """Each side's median over rounds in which they take turns, shown; by name."""
    found = {name: [] for name, _ in sides}
    for _ in range(ROUNDS):
        for name, side in sides:
            found[name].append(side())
    middle = {}
    for name, rounds in found.items():
        rounds.sort(key=lambda r: r[0])
        middle[name] = rounds[len(rounds) // 2][0]
        show(net, name, *rounds[len(rounds) // 2])
    return middle


def compare(ours, python, net):
    """Ranks of this machine, against one process and PyTorch."""
    sides = [
        ("1 process, 1 thread", lambda: ours.step(net, 1, 1)),
        ("1 process, 2 threads", lambda: ours.step(net, 1, 2)),
        ("2 ranks, 1 thread each", lambda: ours.step(net, 2, 1)),
        ("PyTorch DDP, 2 ranks", lambda: (ddp(python, net, 2), None)),
        ("4 ranks, 1 thread each", lambda: ours.step(net, 4, 1)),
    ]
    m = medians(net, sides)
    two = m["2 ranks, 1 thread each"]
    return [
        (f"{net}-2-ranks-to-1-thread", two / m["1 process, 1 thread"]),
        (f"{net}-2-ranks-to-2-threads", two / m["1 process, 2 threads"]),
        (f"{net}-2-ranks-to-ddp", two / m["PyTorch DDP, 2 ranks"]),
    ]


def apart(ours, python, net, names, rate):
    """Ranks in network namespaces whose links have a rate."""
    limit(names, rate)
    sides = [
        (f"2 ranks, {rate}", lambda: ours.step(net, 2, 1, True)),
        (f"PyTorch DDP, 2 ranks, {rate}", lambda: (ddp(python, net, 2, True), None)),
        (f"4 ranks, {rate}", lambda: ours.step(net, 4, 1, True)),
    ]
    m = medians(net, sides)
    return [(f"{net}-2-ranks-{rate}-to-ddp", m[f"2 ranks, {rate}"] / m[f"PyTorch DDP, 2 ranks, {rate}"])]


def main():
    train, python, *nets = sys.argv[1:]
    nets = nets or ["resnet-20", "wrn-16-4"]
    cores = os.cpu_count()
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    print(f"{model}, {cores} cores; mini-batches of {BATCH}; medians of {ROUNDS} rounds of {STEPS} steps")
    print(f"{'net':10} {'how':34} {'ms a step':>9} {'exchange':>9} {'MB sent':>9}")
    ratios = []
    with tempfile.TemporaryDirectory() as home:
        data, config = Path(home) / "pictures", Path(home) / "scale.toml"
        pictures(data)
        config.write_text("")
        ours = Ours(train, config, data)
        for net in nets:
            ratios += compare(ours, python, net)
        if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
            print("skipped: links with a rate need root, ip and tc")
        else:
            with namespaces(4) as names:
                for net in nets:
                    for rate in RATES:
                        ratios += apart(ours, python, net, names, rate)
    for name, ratio in ratios:
        print(f"ratio {name} {ratio:.3f}")


main()

"""paradised under load beside ONNX Runtime behind FastAPI, MLServer and LitServe: `make bench-serve`.

Every server is held to one core and the load generator to another; servers take turns. Closed loop by wrk on eight connections, open loop by
h2load at half of what a server reached. CPU time is the server's process tree's, from /proc. Ends with one line a figure,
`ratio NAME OURS/PEER`, below 1: ours is better.
"""

import base64
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PARADISED = ROOT / "target/release/paradised"
MODEL = ROOT / "models/fashion-mnist-resnet8-pm"
TURNS = int(os.environ.get("TURNS", "3"))
SECONDS = 4
CONNECTIONS = 8
# Where an open loop has as many connections as clients, each asks at its share of the rate.
OPEN = 8


def pictures(folder):
    """The two pictures, as files: 28 x 28 PGM and 640 x 480 JPEG."""
    subprocess.run([str(ROOT / ".venv-serve-fastapi/bin/python"), "-c", """
import sys, numpy
from PIL import Image
from pathlib import Path
folder = Path(sys.argv[1])
rng = numpy.random.default_rng(1)
small = (numpy.indices((28, 28)).sum(0) * 9 % 256).astype("uint8")
(folder / "small.pgm").write_bytes(b"P5 28 28 255\\n" + small.tobytes())
y, x = numpy.indices((480, 640))
scene = numpy.stack([128 + 100 * numpy.sin(x / 37 + k) * numpy.cos(y / (29 + k)) for k in range(3)], -1)
scene += rng.normal(0, 6, scene.shape)
Image.fromarray(scene.clip(0, 255).astype("uint8")).save(folder / "large.jpg", quality=85)
""", folder], check=True)
    return {"28x28": Path(folder) / "small.pgm", "640x480-jpeg": Path(folder) / "large.jpg"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def family(pid):
    """A process and all below it."""
    below = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [pid] + [p for child in below for p in family(int(child))]


def cpu_seconds(pid):
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for process in family(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except FileNotFoundError:
            pass
    return total / ticks


class Server:
    """A server on a core of its own, and how a picture is sent to it."""

    def __init__(self, name, command, path, ready, body, kind, environment=None, folder=None, port=None):
        self.name, self.path, self.body, self.kind = name, path, body, kind
        self.port = port or free_port()
        arguments = [str(a).replace("PORT", str(self.port)) for a in command]
        self.process = subprocess.Popen(["taskset", "-c", "0", *arguments], env={**os.environ, **(environment or {})}, cwd=folder,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url(ready), timeout=1).read()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"bench-serve: {name} did not start: {' '.join(arguments)}")

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def once(self, picture):
        request = urllib.request.Request(self.url(self.path), self.body(picture), {"Content-Type": self.kind})
        return json.loads(urllib.request.urlopen(request, timeout=10).read())

    def closed(self, picture, folder):
        """Requests a second and microseconds of CPU a request."""
        (Path(folder) / "body").write_bytes(self.body(picture))
        script = Path(folder) / "post.lua"
        script.write_text(f'wrk.method="POST"\nlocal f=io.open("{folder}/body","rb")\nwrk.body=f:read("*a")\n'
                          f'f:close()\nwrk.headers["Content-Type"]="{self.kind}"\n')
        before = cpu_seconds(self.process.pid)
        out = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script), self.url(self.path)],
                             capture_output=True, text=True, check=True).stdout
        used = cpu_seconds(self.process.pid) - before
        if "Non-2xx" in out:
            sys.exit(f"bench-serve: {self.name} refused requests:\n{out}")
        n = int(re.search(r"(\d+) requests in", out)[1])
        return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), 1e6 * used / n

    def open(self, picture, rate, folder):
        """Median and 99th percentile of latency in milliseconds, at this rate."""
        (Path(folder) / "body").write_bytes(self.body(picture))
        log = Path(folder) / "times"
        log.unlink(missing_ok=True)
        each = max(1, int(rate / OPEN))
        subprocess.run(["taskset", "-c", "1", "h2load", "--h1", f"-c{OPEN}", f"--rps={each}", f"-D{SECONDS}", "-d", f"{folder}/body",
                        "-H", f"content-type: {self.kind}", f"--log-file={log}", self.url(self.path)], capture_output=True, check=True)
        times = sorted(int(line.split()[2]) / 1e3 for line in log.read_text().splitlines() if line.split()[1] == "200")
        return statistics.median(times), times[int(0.99 * (len(times) - 1))]

    def stop(self):
        for process in reversed(family(self.process.pid)):
            subprocess.run(["kill", str(process)], stderr=subprocess.DEVNULL)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def fastest_onnx():
    """The float or the int8 graph, whichever ONNX Runtime runs faster here."""
    python = ROOT / ".venv-serve-fastapi/bin/python"
    timed = "import time,sys;from network import Network;n=Network();d=open(sys.argv[1],'rb').read();[n.answer(d) for _ in range(50)];" \
            "t=time.perf_counter();[n.answer(d) for _ in range(300)];print(time.perf_counter()-t)"

    def takes(file):
        environment = {**os.environ, "PEER_ONNX": str(MODEL / file), "PYTHONPATH": str(HERE)}
        return float(subprocess.run(["taskset", "-c", "0", str(python), "-c", timed, str(PICTURES["28x28"])], env=environment, capture_output=True,
                                    text=True, check=True).stdout)

    return min(["encoder.onnx", "encoder.int8.onnx"], key=takes)


def in_process(picture):
    """Microseconds of one call without a server, from a picture's bytes to the verdict."""
    out = subprocess.run(["taskset", "-c", "0", str(PARADISED), "bench", "--model", str(MODEL), "--picture", str(picture), "--json", "--runs", "2000"],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[0])["p50_us"]


def servers(onnx, folder):
    raw = lambda picture: picture.read_bytes()
    coded = lambda picture: base64.b64encode(picture.read_bytes()).decode()
    environment = {"PEER_ONNX": str(MODEL / onnx), "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    python = lambda peer: str(ROOT / f".venv-serve-{peer}/bin/python")
    mlserver = Path(folder) / "mlserver"
    (mlserver / "net").mkdir(parents=True)
    rest, grpc, metrics = free_port(), free_port(), free_port()
    (mlserver / "settings.json").write_text(json.dumps({"debug": False, "host": "127.0.0.1", "http_port": rest, "grpc_port": grpc,
                                                        "metrics_port": metrics, "parallel_workers": 0, "logging_settings": None}))
    (mlserver / "net/model-settings.json").write_text(json.dumps({"name": "net", "implementation": "mlserver_app.Classifier"}))
    tensor = lambda picture: json.dumps({"inputs": [{"name": "picture", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "base64"},
                                                     "data": [coded(picture)]}]}).encode()
    ours = Server("paradised", [PARADISED, "serve", "--model", MODEL, "--listen", "127.0.0.1:PORT"], "/v1/classify", "/v2/health/ready", raw,
                  "application/octet-stream", {"RUST_LOG": "error"})
    fastapi = Server("fastapi", [python("fastapi"), "-m", "uvicorn", "fastapi_app:app", "--port", "PORT", "--log-level", "error", "--no-access-log"],
                     "/classify", "/ready", raw, "application/octet-stream", environment, HERE)
    lit = Server("litserve", [python("litserve"), "litserve_app.py", "PORT"], "/predict", "/health",
                 lambda picture: json.dumps({"picture": coded(picture)}).encode(), "application/json", environment, HERE)
    ml = Server("mlserver", [Path(python("mlserver")).parent / "mlserver", "start", "."], "/v2/models/net/infer", "/v2/health/live", tensor,
                "application/json", environment, mlserver, rest)
    return [ours, fastapi, lit, ml]


def main():
    global PICTURES
    with tempfile.TemporaryDirectory() as folder:
        PICTURES = pictures(folder)
        onnx = fastest_onnx()
        cpu = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
        print(f"{cpu}; {MODEL.name}; peers run {onnx}; wrk, {CONNECTIONS} connections; a core for the server, another for the client")
        alone = {name: in_process(picture) for name, picture in PICTURES.items()}
        all_servers = servers(onnx, folder)
        try:
            figures = {}
            for server in all_servers:
                for picture in PICTURES.values():
                    server.once(picture)
            for _ in range(TURNS):
                for name, picture in PICTURES.items():
                    for server in all_servers:
                        figures.setdefault((name, server.name), []).append(server.closed(picture, folder))
            rates = {key: statistics.median(rate for rate, _ in values) for key, values in figures.items()}
            costs = {key: statistics.median(cost for _, cost in values) for key, values in figures.items()}
            late = {}
            for name, picture in PICTURES.items():
                for server in all_servers:
                    runs = [server.open(picture, rates[name, server.name] / 2, folder) for _ in range(TURNS)]
                    late[name, server.name] = [statistics.median(column) for column in zip(*runs)]
        finally:
            for server in all_servers:
                server.stop()
    ratios = []
    for name in PICTURES:
        print(f"\n{name}: in process, from bytes to verdict, {alone[name]:.1f} us")
        print(f"  {'server':<12}{'requests/s':>12}{'CPU us':>10}{'p50 ms at half load':>22}{'p99 ms':>10}")
        for server in all_servers:
            key = name, server.name
            p50, p99 = late[key]
            print(f"  {server.name:<12}{rates[key]:>12.0f}{costs[key]:>10.0f}{p50:>22.3f}{p99:>10.3f}")
            if server.name != "paradised":
                ours = name, "paradised"
                ratios.append((f"serve-{name}-time-vs-{server.name}", rates[key] / rates[ours]))
                ratios.append((f"serve-{name}-cpu-vs-{server.name}", costs[ours] / costs[key]))
                ratios.append((f"serve-{name}-p99-vs-{server.name}", late[ours][1] / p99))
    ours = "28x28", "paradised"
    ratios.append(("serve-28x28-cpu-vs-in-process-and-50us", costs[ours] / (alone["28x28"] + 50)))
    large = "640x480-jpeg", "paradised"
    ratios.append(("serve-640x480-jpeg-time-vs-in-process", 1e6 / alone["640x480-jpeg"] / rates[large]))
    for name in PICTURES:
        p50, p99 = late[name, "paradised"]
        ratios.append((f"serve-{name}-p99-vs-three-medians", p99 / (3 * p50)))
    print()
    for name, value in ratios:
        print(f"ratio {name} {value:.3f}")


main()

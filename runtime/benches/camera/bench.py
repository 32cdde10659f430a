"""What one camera costs: 640 x 480 MJPEG at 10 frames a second over HTTP, of a still scene with the noise of a sensor. paradised decodes each
frame, compares it with the last ones and classifies what the gate lets pass; ffmpeg, the peer, decodes the same stream and scores scene
changes. Both read it at the same time, each from an ffmpeg of its own. CPU time by /proc, of all threads.

bench.py PARADISED MODEL [SECONDS]
"""
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

program, model = sys.argv[1:3]
seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 30
rate = 10
scene = f"smptebars=size=640x480:rate={rate},noise=alls=10:allf=t"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def camera(port):
    return subprocess.Popen(["ffmpeg", "-loglevel", "quiet", "-re", "-f", "lavfi", "-i", scene, "-q:v", "5", "-f", "mpjpeg",
                             "-listen", "1", f"http://127.0.0.1:{port}/film"], stdin=subprocess.DEVNULL)


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_name():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


with tempfile.TemporaryDirectory() as folder:
    ports = [free_port(), free_port()]
    cameras = [camera(port) for port in ports]
    time.sleep(1)
    settings = pathlib.Path(folder, "paradised.toml")
    settings.write_text(f"[[camera]]\nname = 'film'\nsource = 'mjpeg+http://127.0.0.1:{ports[0]}/film'\ninterval_ms = 500\n")
    service = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0", "--model", model, "--config", str(settings)],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    url = service.stdout.readline().split()[-1]
    peer = subprocess.Popen(["ffmpeg", "-loglevel", "quiet", "-i", f"http://127.0.0.1:{ports[1]}/film", "-vf",
                             "select='gt(scene,0.1)'", "-f", "null", "-"], stdin=subprocess.DEVNULL)
    try:
        look = lambda: json.load(urllib.request.urlopen(f"{url}/v1/cameras/film"))
        time.sleep(5)
        first, at, began = look(), [cpu(service.pid), cpu(peer.pid)], time.monotonic()
        time.sleep(seconds)
        last, to, took = look(), [cpu(service.pid), cpu(peer.pid)], time.monotonic() - began
    finally:
        for process in [service, peer, *cameras]:
            process.kill()
            process.wait()
frames = last["pictures"] - first["pictures"]
classified = last["classified"] - first["classified"]
ours, theirs = [(b - a) / took for a, b in zip(at, to)]
print(f"{cpu_name()}, {took:.0f} s, {frames / took:.1f} frames a second, {classified} of {frames} classified")
print(f"paradised: {100 * ours:.1f} % of a core (10 wanted), {1000 * ours * took / frames:.2f} ms a frame; the whole service, its watch included")
print(f"ffmpeg, decoding and scoring: {100 * theirs:.1f} % of a core")
print(f"skipped: {100 * (1 - classified / frames):.1f} % (95 wanted)")
print(f"ratio camera-640x480-10fps {ours / theirs:.3f}")

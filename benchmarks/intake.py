"""What /healthz waits while the gateway reads large and hostile requests.

    python benchmarks/intake.py [SECONDS]

The gateway of benchmarks/gateway/ours.py runs in a process of its own. Each kind of request is sent
again and again for SECONDS (5), one after another, while /healthz is asked every 5 ms; the first
row is the same without other requests, measured in the same run.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent / "gateway"
KEY = "benchmark-key"
JSON = "application/json"
FORM = "multipart/form-data; boundary=BB"


def messages(one: bytes, size: int) -> bytes:
    body = b",".join([one] * (size // (len(one) + 1)))
    return b'{"model":"bench","messages":[' + body + b"]}"


CASES = {
    "nothing else": ("", JSON, b""),
    "24 MB of valid messages": (
        "/v1/chat/completions", JSON, messages(b'{"role":"user","content":"hi"}', 24_000_000),
    ),
    "30 MB of invalid messages": (
        "/v1/chat/completions", JSON, messages(b'{"role":"user","content":1}', 30_000_000),
    ),
    "a picture of 20 MB": (
        "/v1/chat/completions", JSON, messages(b'{"role":"user","content":"' + b"A" * 20_000_000 + b'"}', 20_000_100),
    ),
    "222,222 empty parts": (
        "/v1/audio/transcriptions", FORM, b"--BB\r\n\r\n\r\n" * 222_222,
    ),
}  # fmt: skip


def send(port: int, path: str, kind: str, body: bytes, until: float) -> list[int]:
    statuses = []
    while path and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        headers = {"content-type": kind, "authorization": f"Bearer {KEY}"}
        with contextlib.suppress(ConnectionError):  # refused before it was sent whole
            connection.request("POST", path, body, headers)
            statuses.append(connection.getresponse().status)
        connection.close()
    return statuses


def ask(port: int, until: float) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    taken = []
    while time.monotonic() < until:
        began = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        taken.append((time.perf_counter() - began) * 1000)
        time.sleep(0.005)
    connection.close()
    return taken


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def main(seconds: float) -> None:
    upstream, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        commands = [
            [str(HERE / "upstream.py"), str(upstream)],
            [str(HERE / "ours.py"), str(port), str(upstream), f"{folder}/log", "conforming"],
        ]
        for command in commands:
            process = subprocess.Popen([sys.executable, *command])
            stack.callback(process.wait)
            stack.callback(process.terminate)
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        time.sleep(2)  # the documented surface is built
        print(f"{'/healthz beside':28}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}   requests")
        for name, (path, kind, body) in CASES.items():
            until = time.monotonic() + seconds
            statuses: list[int] = []
            sender = threading.Thread(
                target=lambda *args: statuses.extend(send(*args)),  # noqa: B023  (joined below)
                args=(port, path, kind, body, until),
            )
            sender.start()
            taken = ask(port, until)
            sender.join()
            p99 = statistics.quantiles(taken, n=100)[98]
            counts = ", ".join(f"{statuses.count(s)} x {s}" for s in sorted(set(statuses)))
            row = f"{statistics.median(taken):8.1f}{p99:8.1f}{max(taken):8.1f}"
            print(f"{name:28}{row}   {counts}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)

"""The gateway beside a direct connection, nginx and a plain FastAPI proxy: same upstream, same
run, rounds interleaved, medians.

    python benchmarks/gateway.py [--rounds 5] [--seconds 2] [--json]

The load and the upstream share one CPU, the candidate has another to itself. Other work on the
machine moves the numbers: read the ratios, and only of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent / "gateway"
MEASURES = {
    "latency": ("1 client, median", "ms"),
    "answers": ("32 clients", "answers/s"),
    "cpu": ("CPU an answer", "µs"),
    "events": ("32 streams", "events/s"),
    "first": ("first event, median", "ms"),
}
SERVERS = {
    "its app on uvicorn with httptools": "httptools",
    "its app on uvicorn with h11": "h11",
    "its app on granian": "granian",
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(cpu: int, port: int, *command: str) -> Iterator[int]:
    """A server's pid, on one CPU, from when its port answers to its end."""
    pinned = ["taskset", "-c", str(cpu), *command] if shutil.which("taskset") else [*command]
    process = subprocess.Popen(pinned)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"did not start: {' '.join(command)}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def start_all(
    stack: contextlib.ExitStack, folder: Path, upstream: int, cpu: int, pids: dict[str, int]
) -> dict[str, int]:
    """Start every candidate; return their ports, and note their ``pids``."""
    ports = {"direct": upstream}

    def start(name: str, *command: str) -> None:
        filled = [part.replace("PORT", str(ports[name])) for part in command]
        pids[name] = stack.enter_context(running(cpu, ports[name], *filled))

    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        print("nginx is not installed: left out (apt-get install nginx-light)", file=sys.stderr)
    else:
        ports["nginx"] = free_port()
        text = (HERE / "nginx.conf").read_text()
        for old, new in (
            ("DIRECTORY", str(folder)),
            ("UPSTREAM", str(upstream)),
            ("PORT", str(ports["nginx"])),
        ):
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text)
        start("nginx", nginx, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"))
    for name, conforming in (
        ("yibu", "yes"),
        ("yibu, normalizing", "no"),
        ("yibu, a key with limits", "limited"),
    ):
        ports[name] = free_port()
        log = folder / f"{conforming}.log"
        script = str(HERE / "ours.py")
        start(name, sys.executable, script, "PORT", str(upstream), str(log), conforming)
    for name, server in SERVERS.items():
        if server == "granian" and importlib.util.find_spec("granian") is None:
            print("granian is not installed: left out (pip install granian)", file=sys.stderr)
            continue
        ports[name] = free_port()
        log = folder / f"{server}.log"
        start(name, sys.executable, str(HERE / "under.py"), server, "PORT", str(upstream), str(log))
    ports["FastAPI + httpx"] = free_port()
    start("FastAPI + httpx", sys.executable, str(HERE / "plain.py"), "PORT", str(upstream))
    return ports


def measure(kind: str, port: int, amount: float, pid: int) -> float:
    command = [sys.executable, str(HERE / "load.py"), kind, str(port), str(amount), str(pid)]
    if shutil.which("taskset"):
        command = ["taskset", "-c", "0", *command]
    value = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return value * {"ms": 1000, "µs": 1_000_000}.get(MEASURES[kind][1], 1)


def table(results: dict[str, dict[str, float]]) -> str:
    lines = ["| | " + " | ".join(f"{name}, {unit}" for name, unit in MEASURES.values()) + " |"]
    lines.append("|---|" + "---|" * len(MEASURES))
    reference = results.get("nginx", results["direct"])
    for name, values in results.items():
        cells = []
        for kind, value in values.items():
            if MEASURES[kind][1] == "µs":
                cells.append(f"{value:.0f}")
            elif MEASURES[kind][1] == "ms":
                cells.append(f"{value:.3f} (+{value - results['direct'][kind]:.3f})")
            else:
                cells.append(f"{value:,.0f} ({value / reference[kind]:.0%})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.append("(+) against direct; (%) of " + ("nginx" if "nginx" in results else "direct"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--requests", type=int, default=1000, help="for the latencies")
    parser.add_argument("--only", help="candidates, with ; between them")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cpu = 1 if (os.cpu_count() or 1) > 1 else 0
    samples: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yibu-bench-")))
        upstream = free_port()
        script = str(HERE / "upstream.py")
        pids = {}
        pids["direct"] = stack.enter_context(
            running(0, upstream, sys.executable, script, str(upstream))
        )
        ports = start_all(stack, folder, upstream, cpu, pids)
        if options.only:
            ports = {name: ports[name] for name in ("direct", *options.only.split(";"))}
        for _ in range(options.rounds):
            for kind in MEASURES:
                amount = {"latency": options.requests, "first": options.requests / 10}
                for name, port in ports.items():
                    value = measure(kind, port, amount.get(kind, options.seconds), pids[name])
                    samples.setdefault(name, {}).setdefault(kind, []).append(value)
    results = {
        name: {kind: statistics.median(values) for kind, values in kinds.items()}
        for name, kinds in samples.items()
    }
    print(json.dumps({"version": 1, "results": results}) if options.json else table(results))


if __name__ == "__main__":
    main()

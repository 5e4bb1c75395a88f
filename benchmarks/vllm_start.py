"""How long vLLM takes on a CPU until its first token: by hand, and through yibu.

    python benchmarks/vllm_start.py [--rounds N] [--sides NAME ...] [--cache DIR]

Sides, interleaved in one run, all in the same environment with the same model:

- ``script``: the tutorial's command line, as it stands
- ``eager``: the same with --enforce-eager, as an expert starts it on a CPU
- ``serve``: ``eager`` through ``vllm serve``, which its makers want instead of the module
- ``no byte code``: ``eager`` where byte code is neither found nor kept (a fresh environment of
  uv's in an image that sets PYTHONDONTWRITEBYTECODE)
- ``no cache``: ``eager`` with an empty VLLM_CACHE_ROOT, as at the first start of an architecture
- ``yibu``: ``yibu up -d`` on a machine where nothing runs
- ``yibu, worker``: the same with vLLM's own choice of a worker process

Wall seconds, CPU seconds of all its processes until then (which a busy machine changes little),
and what they hold in memory. Medians, and ratios to ``eager``.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.startup import wait_for_token
from tests.e2e.home import Home
from tests.e2e.vllm_models import VllmModels

FLAGS = ("--max-model-len", "2048", "--max-num-seqs", "32", "--dtype", "bfloat16")
SIDES = ("script", "eager", "serve", "no byte code", "no cache", "yibu", "yibu, worker")
_WORKER = ("--distributed-executor-backend", "mp")
_REFERENCE = "eager"
_MODULE = ("vllm.entrypoints.openai.api_server", "--model")
_SERVE = ("vllm.entrypoints.cli.main", "serve")


@dataclass(frozen=True, slots=True)
class Start:
    wall: float
    cpu: float
    resident: int
    """MiB of all processes, shared memory counted for each."""


def measured(root: psutil.Process, began: float) -> Start:
    tree = [root, *root.children(recursive=True)]
    times = [process.cpu_times() for process in tree]
    cpu = sum(t.user + t.system + t.children_user + t.children_system for t in times)
    resident = sum(process.memory_info().rss for process in tree) >> 20
    return Start(time.monotonic() - began, cpu, resident)


def by_hand(
    python: Path,
    weights: Path,
    env: Mapping[str, str],
    *flags: str,
    program: Sequence[str] = _MODULE,
) -> Start:
    """Start the server, wait for one token, end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    argv = [str(python), "-m", *program, str(weights), "--served-model-name", "smol",
            "--host", "127.0.0.1", "--port", port, *FLAGS, *flags]  # fmt: skip
    base = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.monotonic()
    process = subprocess.Popen(
        argv,
        env={**base, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_token(f"http://127.0.0.1:{port}", "", timeout=400)
        return measured(psutil.Process(process.pid), began)
    finally:
        process.terminate()
        process.wait()


def through_yibu(cache: Path, weights: Path, *flags: str) -> Start:
    with tempfile.TemporaryDirectory() as directory:
        home = Home(Path(directory), cache)
        began = time.monotonic()
        try:
            home.yibu("up", "-d", str(weights), "--name", "smol", "--port", "0", "--engine", "vllm",
                      "--", *FLAGS, *flags, timeout=400)  # fmt: skip
            ended = time.monotonic()
            start = measured(psutil.Process(home.model("smol")["replicas"][0]["pid"]), began)
            return Start(ended - began, start.cpu, start.resident)
        finally:
            home.stop()


def run(side: str, models: VllmModels, python: Path, weights: Path) -> Start:
    if side.startswith("yibu"):
        return through_yibu(models.cache, weights, *(_WORKER if "worker" in side else ()))
    if side == "script":
        with tempfile.TemporaryDirectory() as temporary:
            return by_hand(python, weights, {"TMPDIR": temporary})
    program = _SERVE if side == "serve" else _MODULE
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as temporary:
        env = {
            "no byte code": {"PYTHONPYCACHEPREFIX": empty, "PYTHONDONTWRITEBYTECODE": "1"},
            "no cache": {"VLLM_CACHE_ROOT": empty},
        }
        own = {"TMPDIR": temporary, **env.get(side, {})}  # it leaves its sockets there
        return by_hand(python, weights, own, "--enforce-eager", program=program)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--cache", type=Path, default=Path(".test-cache"))
    args = parser.parse_args()
    models = VllmModels(args.cache.absolute())
    python, weights = models.python(), models.smollm2()
    starts: dict[str, list[Start]] = {side: [] for side in args.sides}
    if _REFERENCE in starts:  # writes the byte code and the caches that later starts find
        run(_REFERENCE, models, python, weights)
    for number in range(args.rounds):
        for side, found in starts.items():
            found.append(run(side, models, python, weights))
            print(f"round {number + 1}, {side}: {found[-1]}, load {os.getloadavg()[0]:.1f}",
                  file=sys.stderr, flush=True)  # fmt: skip
    report(starts)


def report(starts: Mapping[str, list[Start]]) -> None:
    medians = {
        side: Start(
            statistics.median(start.wall for start in found),
            statistics.median(start.cpu for start in found),
            int(statistics.median(start.resident for start in found)),
        )
        for side, found in starts.items()
    }
    reference = medians.get(_REFERENCE)
    for side, median in medians.items():
        ratio = ""
        if reference is not None:
            ratio = f"  ({median.wall / reference.wall:.2f}, {median.cpu / reference.cpu:.2f})"
        print(
            f"{side:<14} {median.wall:6.1f} s, {median.cpu:6.1f} s of CPU{ratio}, "
            f"{median.resident:,} MiB"
        )


if __name__ == "__main__":
    main()

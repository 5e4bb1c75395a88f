"""Tokens per second: llama.cpp under yibu's launcher, and the same engine run by hand.

    python benchmarks/llama_cpp.py MODEL.gguf [--rounds 5] [--streams 1 8] [--tokens 64]

Both servers stand at once and are asked in turn, so that a busy machine slows both alike; what
counts is the ratio of the medians, which should be 0.95 or more. "By hand" is the shortest script
that serves the model with xllamacpp, with the same slots and context; its idle threads wait
passively, as yibu has them do, unless ``--spinning`` is given. With OpenMP's own default, spinning,
the script falls to a tenth of the speed as soon as anything else runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from yibu.config import ModelConfig
from yibu.engines.base import Binding
from yibu.engines.llama_cpp import LlamaCpp
from yibu.environments.manager import EnvironmentManager
from yibu.environments.uv_settings import UvSettings
from yibu.paths import Paths
from yibu.planner.types import MemoryNeed, ModelFacts, Placement

KEY = "benchmark"
CONTEXT = 2048
BY_HAND = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_parallel, params.n_ctx = int(sys.argv[3]), int(sys.argv[4])
server = xllamacpp.Server(params)
threading.Event().wait()
"""
PROMPT = "Tell me a long story about the sea."


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(argv: list[str], env: dict[str, str], port: int) -> Iterator[str]:
    process = subprocess.Popen(
        argv,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(process, url)
        yield url
    finally:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the engine at {url} did not start")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)  # not listening yet, or still loading


def tokens_per_second(url: str, streams: int, tokens: int) -> float:
    """Generated tokens over wall time, all streams together."""
    body = {
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "cache_prompt": False,
    }
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    def ask(_: int) -> int:
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            return int(json.load(response)["usage"]["completion_tokens"])

    started = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        generated = sum(pool.map(ask, range(streams)))
    return generated / (time.perf_counter() - started)


def under_yibu(
    python: Path, model: Path, slots: int, threads: int
) -> tuple[list[str], int, dict[str, str]]:
    facts = ModelFacts("gguf", "llama", model.stat().st_size)
    placement = Placement((), threads, CONTEXT, slots, MemoryNeed(0, 0, 0))
    plan = LlamaCpp().plan(ModelConfig("bench", str(model)), facts, placement)
    port = free_port()
    argv, env = plan.bind(Binding("127.0.0.1", port, python, model, KEY))
    return argv, port, env


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--spinning", action="store_true")
    parser.add_argument(
        "--environments", type=Path, default=Paths.from_env(os.environ).environments
    )
    arguments = parser.parse_args()
    manager = EnvironmentManager(
        arguments.environments, UvSettings.from_pip(os.environ), env=os.environ
    )
    python = manager.ensure("llama.cpp")
    slots = max(arguments.streams)
    argv, port, env = under_yibu(python, arguments.model, slots, os.cpu_count() or 1)
    hand_port = free_port()
    hand = [str(python), "-c", BY_HAND, str(arguments.model), str(hand_port),
            str(slots), str(CONTEXT * slots)]  # fmt: skip
    hand_env = {} if arguments.spinning else {"OMP_WAIT_POLICY": "passive"}
    with ExitStack() as stack:
        urls = {
            "yibu": stack.enter_context(serving(argv, env, port)),
            "by hand": stack.enter_context(serving(hand, hand_env, hand_port)),
        }
        for streams in arguments.streams:
            rates: dict[str, list[float]] = {name: [] for name in urls}
            for turn in range(arguments.rounds + 1):
                for name, url in urls.items():
                    rate = tokens_per_second(url, streams, arguments.tokens)
                    if turn > 0:  # the first only warms up
                        rates[name].append(rate)
            medians = {name: statistics.median(values) for name, values in rates.items()}
            ratio = medians["yibu"] / medians["by hand"]
            words = ", ".join(f"{name} {median:.1f} tok/s" for name, median in medians.items())
            print(f"{streams:3} streams: {words}, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()

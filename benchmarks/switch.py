"""What switching between two models costs beyond the engine's own stop and start.

    python benchmarks/switch.py [--rounds N] [--json] [--cache DIR]

Two models of one group, so that only one is loaded: each request for the other one has the loaded one
stopped and the other one started. By hand: the same engine command is ended with SIGTERM and started
again, until it gives one token. Both in turn in one run, medians; what yibu adds should be 0.3 s at most.
A model stays loaded for as long as its start took, so requests are further apart than that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.startup import SOURCE, engine_command, seconds, wait_for_token
from tests.e2e.home import Home

_APART = 2.0
"""Starts' times that lie between two switches."""


def ask(url: str, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, headers)
    with urllib.request.urlopen(request, timeout=120):
        pass


class ByHand:
    """The engine's own command, ended and started again."""

    def __init__(self, argv: list[str], env: dict[str, str], port: int) -> None:
        self._argv, self._env, self._port = list(argv), env, port
        self._argv[argv.index("--port") + 1] = str(port)
        self._process: subprocess.Popen[bytes] | None = None

    def switch(self) -> None:
        self.end()
        self._process = subprocess.Popen(
            self._argv, env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_token(f"http://127.0.0.1:{self._port}", self._env.get("YIBU_ENGINE_KEY", ""))

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path(".test-cache"))
    args = parser.parse_args()
    times: dict[str, list[float]] = {"yibu": [], "by hand": []}
    with (
        tempfile.TemporaryDirectory() as directory,
        Home(Path(directory), args.cache.absolute()) as home,
    ):
        home.write([{"name": name, "source": SOURCE, "group": "one"} for name in ("smol", "other")])
        home.yibu("up", "-d")
        url = home.url()
        ask(url, "smol")
        by_hand = ByHand(
            *engine_command(home), port=home.model("smol")["replicas"][0]["port"] + 1000
        )
        by_hand.switch()
        names = itertools.cycle(("other", "smol"))
        try:
            for name in itertools.islice(names, args.rounds):
                times["by hand"].append(seconds(by_hand.switch))
                time.sleep(_APART * times["by hand"][-1])
                times["yibu"].append(seconds(lambda name=name: ask(url, name)))  # type: ignore[misc]
        finally:
            by_hand.end()
    medians = {side: statistics.median(found) for side, found in times.items()}
    medians["added"] = medians["yibu"] - medians["by hand"]
    if args.json:
        print(json.dumps(medians))
    else:
        for side, median in medians.items():
            print(f"{side:8} {median:6.2f} s")


if __name__ == "__main__":
    main()

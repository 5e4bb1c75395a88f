"""What engines hold of main memory while they load, idle and work, beside what the plan says.

    .venv/bin/python benchmarks/engine_memory.py --cache DIR [--audio CLIP]
        [--options JSON] [--engine NAME] [--rounds N] MODEL

DIR is a cache as the tests keep one (``YIBU_TEST_CACHE``). The model is brought up by ``yibu up`` in a
home of its own; every process of the engine is read from /proc/PID/smaps_rollup each 50 ms: its
proportional share of all its pages (PSS), and the part that nobody gets before it ends (anonymous and
shared memory, without the pages of files). Then eight clients ask at once, N times each (3). Exit 1
if the plan is less than it took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from yibu.node.machine import processes
from yibu.node.state import home_id
from yibu.paths import Paths

MIB = 1 << 20
CLIENTS = 8
EVERY = 0.05


class Watcher(threading.Thread):
    """The largest readings since the last ``take``, of all processes of one home's engines."""

    def __init__(self, home: str) -> None:
        super().__init__(daemon=True)
        self._home = home
        self._lock = threading.Lock()
        self._peak = (0, 0)
        self._last = (0, 0, 0)
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(EVERY):
            # Its launch gives each engine a marker that its children inherit.
            pids = [identity.pid for identity in processes.marked(f"{self._home}/")]
            shares = [share for pid in pids if (share := pss(pid)) is not None]
            now = (sum(s[0] for s in shares), sum(s[1] for s in shares), len(shares))
            with self._lock:
                self._last = now
                self._peak = (max(self._peak[0], now[0]), max(self._peak[1], now[1]))

    def take(self) -> tuple[tuple[int, int], tuple[int, int, int]]:
        with self._lock:
            peak, self._peak = self._peak, (0, 0)
            return peak, self._last


def pss(pid: int) -> tuple[int, int] | None:
    """Bytes: of all pages, and of those that are no file's."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    fields = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
    return fields["Pss:"], fields["Pss_Anon:"] + fields["Pss_Shmem:"]


def ask(url: str, name: str, clip: bytes | None, number: int) -> None:
    if clip is None:
        prompt = " ".join(f"word{number} {n}" for n in range(60))
        body = json.dumps({"model": name, "prompt": prompt, "max_tokens": 48}).encode()
        request = urllib.request.Request(f"{url}/v1/completions", body,
                                         {"Content-Type": "application/json"})  # fmt: skip
    else:
        edge = "yibu-edge"
        parts = (
            f'--{edge}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{name}\r\n'
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        )
        body = parts.encode() + clip + f"\r\n--{edge}--\r\n".encode()
        request = urllib.request.Request(
            f"{url}/v1/audio/transcriptions", body,
            {"Content-Type": f"multipart/form-data; boundary={edge}"},
        )  # fmt: skip
    with urllib.request.urlopen(request, timeout=300) as answer:
        answer.read()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--engine")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    clip = arguments.audio.read_bytes() if arguments.audio else None
    with tempfile.TemporaryDirectory(prefix="memory-") as directory:
        entry = {"name": "m", "source": arguments.model, "options": arguments.options}
        if arguments.engine:
            entry["engine"] = arguments.engine
        file = Path(directory) / "yibu.json"
        file.write_text(json.dumps({"gateway": {"port": 0}, "models": [entry]}))
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("YIBU_")},
            "XDG_CACHE_HOME": str(arguments.cache / "cache"),
            "XDG_DATA_HOME": str(arguments.cache / "data"),
            "XDG_STATE_HOME": directory,
        }
        command = [sys.executable, "-P", "-c", "from yibu.cli.main import main; main()"]

        def yibu(*words: str) -> str:
            done = subprocess.run([*command, *words], env=env, capture_output=True, text=True,
                                  check=False)  # fmt: skip
            if done.returncode:
                sys.exit(done.stderr)
            return done.stdout

        shown = yibu("plan", "-f", str(file))
        print("\n".join(line for line in shown.splitlines() if "memory: " in line))
        (plan,) = json.loads(yibu("plan", "--json", "-f", str(file)))["models"]
        planned = plan["bytes"] * plan["ranks"]
        paths = Paths.from_env(env)
        paths.make()
        watcher = Watcher(home_id(paths.state))
        watcher.start()
        try:
            yibu("up", "-d", "-f", str(file))
            (_, loading), _ = report("load, peak", "ready", watcher)
            time.sleep(5 * EVERY)
            url = json.loads(yibu("ps", "--json"))["gateway"]["url"]
            report("", "idle", watcher)
            with ThreadPoolExecutor(CLIENTS) as pool:
                work = range(CLIENTS * arguments.rounds)
                list(pool.map(lambda number: ask(url, "m", clip, number), work))
            (working, _), _ = report("work, peak", "after", watcher)
        finally:
            watcher.done.set()
            yibu("down")
    # What files' pages take while it loads can be had back; at work they are wanted where they are.
    taken = max(loading, working)
    print(f"  planned {planned / MIB:.0f} MiB, taken {taken / MIB:.0f}: {taken / planned:.2f}")
    return int(taken > planned)


def report(
    peak_label: str, label: str, watcher: Watcher
) -> tuple[tuple[int, int], tuple[int, int, int]]:
    peak, last = watcher.take()
    for what, (whole, own) in ((peak_label, peak), (label, last[:2])):
        if what:
            print(f"  {what:12} {whole / MIB:8.0f} MiB, without files' pages {own / MIB:8.0f} MiB,"
                  f" {last[2]} processes")  # fmt: skip
    return peak, last


if __name__ == "__main__":
    sys.exit(main())

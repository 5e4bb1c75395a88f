"""Live sessions held at the speed of speech: yibu's engine, and beside it any FunASR websocket server.

    python benchmarks/speech_live.py --model DIR --vad DIR --engine-python PYTHON \
        [--other ws://127.0.0.1:10095] [--sessions 8 16 32] [--seconds 40]

Every session speaks FunASR's protocol (2pass): clips with pauses, 60 ms a message, each session at
another place of them. Printed for each number of sessions: from the end of speech to its final text, from
its beginning to the first partial text, the server's processor time and memory a session, and how many
final texts do not begin with what was shown of them. ``--other``
is a server that runs already (FunASR's: ``benchmarks/baselines/funasr_live.py``), measured in turn in the same
run; give its pid with ``--other-pid``. Weights may be random (scripts/make_fullsize_sensevoice.py): then partial texts,
on which two results must agree, say little; with --speaks they can be measured. Run it in the development environment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import wave
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import websockets

ROOT = Path(__file__).parents[1]
RATE = 16_000
STEP = 0.06
PAUSE = 1.4


@dataclass
class Script:
    """What a session says: samples, and when speech begins and ends in them, in seconds."""

    samples: np.ndarray
    spans: list[tuple[float, float]]


@dataclass
class Measured:
    finals: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    missed: int = 0
    texts: int = 0
    """Final texts before which partial ones were shown."""
    revised: int = 0
    """Of them, those that do not begin with what was shown."""


def scripts(seconds: float, count: int) -> list[Script]:
    """The fixture's clips in turn, with pauses; each session begins with another one."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(ROOT / "tests/speech/fixture/sensevoice.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        clips = Path(folder) / "sensevoice" / "clips"
        listing = json.loads((clips / "clips.json").read_text("utf-8"))
        spoken = []
        for entry in listing:
            with wave.open(str(clips / entry["file"])) as file:
                data = np.frombuffer(file.readframes(1 << 26), "<i2")
            spoken.append((data, entry["marks"][0][1], entry["marks"][-1][2]))
    made = []
    for number in range(count):
        parts = [np.zeros(int(RATE * (0.3 + 0.13 * (number % 11))), np.int16)]
        at = len(parts[0]) / RATE
        spans = []
        turn = number
        while at < seconds:
            data, first, last = spoken[turn % len(spoken)]
            spans.append((at + first, at + last))
            parts += [data, np.zeros(int(RATE * PAUSE), np.int16)]
            at += len(data) / RATE + PAUSE
            turn += 1
        made.append(Script(np.concatenate(parts), spans))
    return made


async def session(url: str, script: Script, measured: Measured) -> None:
    async with websockets.connect(
        url, subprotocols=["binary"], max_size=None, ping_interval=None
    ) as socket:
        begin = {
            "mode": "2pass", "chunk_size": [5, 10, 5], "chunk_interval": 10, "wav_name": "bench",
            "wav_format": "pcm", "audio_fs": RATE, "is_speaking": True, "itn": True,
        }  # fmt: skip
        await socket.send(json.dumps(begin))
        started = time.monotonic()
        heard: list[tuple[float, str]] = []
        shown = ""

        async def listen() -> None:
            nonlocal shown
            async for message in socket:
                told = json.loads(message)
                if told.get("is_end"):
                    return
                if told.get("text") or told["mode"] == "2pass-offline":
                    heard.append((time.monotonic() - started, told["mode"]))
                if told["mode"] == "2pass-offline":
                    measured.texts += bool(shown)
                    measured.revised += not letters(told["text"]).startswith(letters(shown))
                    shown = ""
                else:
                    shown += told.get("text", "")

        listening = asyncio.create_task(listen())
        step = int(RATE * STEP)
        for number, at in enumerate(range(0, len(script.samples), step), 1):
            await asyncio.sleep(max(0.0, started + number * STEP - time.monotonic()))
            await socket.send(script.samples[at : at + step].tobytes())
        await socket.send(json.dumps({"is_speaking": False, "is_end": True}))
        with suppress(TimeoutError):  # what it has not said by then is counted as missed
            await asyncio.wait_for(listening, 30)
    for begins, ends in script.spans:
        final = [at for at, mode in heard if mode == "2pass-offline" and at > ends]
        first = [at for at, mode in heard if mode == "2pass-online" and begins < at < ends + PAUSE]
        if final and final[0] < ends + 10:
            measured.finals.append(final[0] - ends)
        else:
            measured.missed += 1
        if first:
            measured.firsts.append(first[0] - begins)


def usage(pid: int) -> tuple[float, float]:
    """Processor seconds and MiB of a process."""
    process = psutil.Process(pid)
    times = process.cpu_times()
    return times.user + times.system, process.memory_info().rss / 2**20


async def measure(name: str, url: str, pid: int | None, count: int, seconds: float) -> None:
    measured = Measured()
    own = waited(url) if name == "yibu" else None
    before = usage(pid) if pid else (0.0, 0.0)
    peak = before[1]
    began = time.monotonic()
    work = asyncio.gather(*(session(url, each, measured) for each in scripts(seconds, count)))
    while not work.done():
        await asyncio.wait({work}, timeout=0.5)
        peak = max(peak, usage(pid)[1] if pid else 0.0)
    work.result()
    took = time.monotonic() - began
    line = f"{name:8} {count:3} sessions  final p50 {quantile(measured.finals, 50):.2f} p95 "
    line += f"{quantile(measured.finals, 95):.2f} s  first partial p50 "
    line += f"{quantile(measured.firsts, 50):.2f} p95 {quantile(measured.firsts, 95):.2f} s "
    line += f"({len(measured.firsts)} of {len(measured.finals) + measured.missed})"
    if pid:
        cpu = (usage(pid)[0] - before[0]) / took / count
        line += f"  cpu {cpu * 100:.1f} % and {(peak - before[1]) / count:.1f} MiB a session"
    line += f"  shown and revised {measured.revised} of {measured.texts}"
    if own is not None:
        seconds_now, count_now = waited(url)
        mean = (seconds_now - own[0]) / max(1.0, count_now - own[1])
        line += f"  of the final, queue and model {mean:.2f} s"
    print(line + (f"  MISSED {measured.missed}" if measured.missed else ""), flush=True)


def waited(url: str) -> tuple[float, float]:
    """Of the engine's own count: seconds from the noticed end of speech to its text, and how many."""
    page = urllib.request.urlopen(f"{url.replace('ws', 'http', 1).removesuffix('/ws')}/metrics")
    text = page.read().decode()
    found = [
        re.search(rf"yibu_speech_live_final_seconds_{name} (\S+)", text)
        for name in ("sum", "count")
    ]
    seconds, count = [float(each[1]) if each else 0.0 for each in found]
    return seconds, count


def letters(text: str) -> str:
    """Without spaces and marks."""
    return "".join(character for character in text if character.isalnum())


def quantile(values: list[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100)[percent - 1]


def start(arguments: argparse.Namespace, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    command = [
        arguments.engine_python, "-m", "yibu.speech", "--model", arguments.model, "--vad",
        arguments.vad, "--port", "0", "--threads", str(arguments.threads),
        "--precision", arguments.precision,
    ]  # fmt: skip
    for name in ("online", "speakers"):
        if getattr(arguments, name):
            command += [f"--{name}", getattr(arguments, name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_WAIT_POLICY": "passive"}
    with log.open("wb") as target:
        process = subprocess.Popen(command, stdout=target, stderr=target, env=environment)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"listening on http://(\S+),", log.read_text())
        try:
            if found and urllib.request.urlopen(f"http://{found[1]}/health", timeout=5):
                return process, f"ws://{found[1]}/ws"
        except OSError:
            pass
        time.sleep(0.5)
    process.kill()
    sys.exit(log.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--vad", required=True)
    parser.add_argument("--engine-python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--online", help="directory of a streaming model, for partial texts")
    parser.add_argument("--speakers", help="directory of CAM++")
    parser.add_argument("--other", help="a running FunASR websocket server")
    parser.add_argument("--other-pid", type=int)
    parser.add_argument("--sessions", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seconds", type=float, default=40.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(arguments, Path(folder) / "engine.log")
        try:
            for count in arguments.sessions:
                asyncio.run(measure("yibu", url, process.pid, count, arguments.seconds))
                if arguments.other:
                    asyncio.run(
                        measure(
                            "other", arguments.other, arguments.other_pid, count, arguments.seconds
                        )
                    )
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()

"""The script that people run today against yibu's engine: same model, same clips, same run.

    python benchmarks/speech.py --model DIR --vad DIR \
        --script-python PYTHON_WITH_FUNASR --engine-python PYTHON_OF_THE_ENGINE

Both servers are started in turn, several rounds, and asked the same: one ten-second clip alone,
then ``--clients`` clients at once, while a probe asks ``/`` (``/health``) twenty times a second.
Prints each side's medians over the rounds, and ratios. Run it on a machine that does nothing
else; it needs aiohttp, psutil and PyAV, and hibari-tts to speak the clips (or ``--clips FILE…``).
``--kind whisper`` compares with the same sort of script around faster-whisper.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import io
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import numpy as np

HERE = Path(__file__).parent
RATE = 16_000
START_SECONDS = 300.0
SENTENCES = (
    "The river runs slowly through the valley and the children play beside it every summer.",
    "She opened the window, looked at the grey sky, and decided to take an umbrella with her.",
    "Nobody in the village could remember a winter as long and as cold as this one had been.",
    "Please send the report before noon, because the meeting begins at one and will be short.",
    "The train to the coast leaves at seven, and it stops at every small station on the way.",
    "He wrote three letters to his brother, and the last of them was never answered at all.",
    "Fresh bread, butter and a cup of strong coffee are all that I want in the morning.",
    "When the music stopped, the whole room was silent, and then everybody began to clap.",
)


@dataclass(frozen=True)
class Side:
    """One of the two servers."""

    name: str
    command: tuple[str, ...]
    path: str
    fields: tuple[tuple[str, str], ...]
    probe: str
    answer: str
    """The key of the text in its JSON."""


@dataclass(frozen=True)
class Round:
    """What one start of one side showed. Seconds, audio seconds a second, MiB."""

    alone: float
    throughput: float
    latency_p50: float
    latency_p99: float
    probe_p50: float
    probe_p99: float
    start: float
    resident_idle: float
    resident_peak: float
    anonymous_peak: float
    failed: int
    texts: tuple[str, ...]


def speak(count: int, seconds: float) -> list[bytes]:
    """``count`` different clips of just so many seconds."""
    from hibari import Hibari

    voice = Hibari()
    clips = []
    for number in range(count):
        order = SENTENCES[number % len(SENTENCES) :] + SENTENCES[: number % len(SENTENCES)]
        speed = 1.0 + 0.02 * (number // len(SENTENCES))
        spoken = np.concatenate([np.asarray(voice(text, speed=speed)) for text in order[:4]])
        clips.append(spoken[: int(24_000 * seconds)].astype(np.float32))
    return [as_wav(clip, 24_000) for clip in clips]


def read(files: Sequence[Path], count: int, seconds: float) -> list[bytes]:
    """Clips cut out of the user's files in turn, repeated where they are short."""
    import av

    clips = []
    for number in range(count):
        resampler = av.AudioResampler("flt", "mono", RATE)
        with av.open(str(files[number % len(files)])) as container:
            frames = [r for f in container.decode(audio=0) for r in resampler.resample(f)]
        samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        samples = np.roll(samples, -RATE * (number // len(files)))
        clips.append(as_wav(np.resize(samples, int(RATE * seconds)), RATE))
    return clips


def as_wav(samples: np.ndarray, rate: int) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return target.getvalue()


def resident(pid: int) -> tuple[float, float]:
    """MiB held by a process and its children, and how much of it is no page of a file (on
    Linux): only that cannot be taken back."""
    import psutil

    process = psutil.Process(pid)
    family = [each.memory_info() for each in (process, *process.children(recursive=True))]
    whole = sum(each.rss for each in family)
    files = sum(getattr(each, "shared", 0) for each in family)
    return whole / 2**20, (whole - files) / 2**20


class Server:
    """A started side; ended with its process group."""

    def __init__(self, side: Side, port: int, log: Path) -> None:
        self.side, self.url = side, f"http://127.0.0.1:{port}"
        environment = {**os.environ, "MODELSCOPE_OFFLINE": "1"}
        with log.open("ab") as target:
            self.process = subprocess.Popen(
                [part.replace("{port}", str(port)) for part in side.command],
                stdout=target,
                stderr=target,
                env=environment,
                start_new_session=True,
            )

    async def ready(self, session: aiohttp.ClientSession) -> float:
        started = time.monotonic()
        while time.monotonic() - started < START_SECONDS:
            if self.process.poll() is not None:
                sys.exit(f"{self.side.name} ended with {self.process.returncode}; see its log")
            try:
                async with session.get(self.url + self.side.probe) as answer:
                    if answer.status == 200:
                        return time.monotonic() - started
            except aiohttp.ClientError:
                pass  # not listening yet
            await asyncio.sleep(0.1)
        sys.exit(f"{self.side.name} was not ready after {START_SECONDS:.0f} s")

    async def ask(self, session: aiohttp.ClientSession, clip: bytes) -> tuple[float, str | None]:
        """Seconds, and the text (None: no answer)."""
        form = aiohttp.FormData(dict(self.side.fields))
        form.add_field("file", io.BytesIO(clip), filename="clip.wav")
        started = time.perf_counter()
        try:
            async with session.post(self.url + self.side.path, data=form) as answer:
                text = (await answer.json()).get(self.side.answer)
        except (aiohttp.ClientError, ValueError):
            text = None
        return time.perf_counter() - started, text

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


async def probe(server: Server, times: list[float]) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            started = time.perf_counter()
            async with session.get(server.url + server.side.probe) as answer:
                await answer.read()
            times.append(time.perf_counter() - started)
            await asyncio.sleep(max(0.0, 0.05 - times[-1]))


async def watch_memory(server: Server, peak: list[tuple[float, float]]) -> None:
    while True:
        peak.append(await asyncio.to_thread(resident, server.process.pid))
        await asyncio.sleep(0.25)


async def one_round(side: Side, clips: list[bytes], wanted: argparse.Namespace) -> Round:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(side, port, wanted.log)
    limits = {
        "timeout": aiohttp.ClientTimeout(total=900),
        "connector": aiohttp.TCPConnector(limit=0),
    }
    try:
        async with aiohttp.ClientSession(**limits) as session:
            start = await server.ready(session)
            await server.ask(session, clips[0])
            idle = resident(server.process.pid)
            alone = [(await server.ask(session, clips[0]))[0] for _ in range(3)]
            probes: list[float] = []
            peak = [idle]
            watching = [
                asyncio.create_task(probe(server, probes)),
                asyncio.create_task(watch_memory(server, peak)),
            ]

            async def client(number: int) -> list[tuple[float, str | None]]:
                clip = clips[number % len(clips)]
                return [await server.ask(session, clip) for _ in range(wanted.requests)]

            started = time.perf_counter()
            answers = await asyncio.gather(*(client(n) for n in range(wanted.clients)))
            elapsed = time.perf_counter() - started
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)
    finally:
        await asyncio.to_thread(server.stop)
    flat = [answer for each in answers for answer in each]
    latencies = sorted(seconds for seconds, _ in flat)
    return Round(
        alone=statistics.median(alone),
        throughput=len(flat) * wanted.seconds / elapsed,
        latency_p50=statistics.median(latencies),
        latency_p99=percentile(latencies, 0.99),
        probe_p50=statistics.median(probes),
        probe_p99=percentile(sorted(probes), 0.99),
        start=start,
        resident_idle=idle[0],
        resident_peak=max(whole for whole, _ in peak),
        anonymous_peak=max(own for _, own in peak),
        failed=sum(text is None for _, text in flat),
        texts=tuple(each[0][1] or "" for each in answers),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def sides(wanted: argparse.Namespace) -> list[Side]:
    script = {
        "sensevoice": HERE / "baselines" / "recognize_script.py",
        "whisper": HERE / "baselines" / "whisper_script.py",
    }[wanted.kind]
    vad = ("--vad", str(wanted.vad)) if wanted.vad else ()
    common = ("--model", str(wanted.model), *vad, "--port", "{port}")
    found = []
    if wanted.script_python:
        command = (str(wanted.script_python), str(script), *common)
        found.append(Side("script", command, "/recognize/", (), "/", "result"))
    for precision in wanted.precisions.split(","):
        command = (str(wanted.engine_python), "-m", "yibu.speech", *common)
        command += ("--precision", precision, "--served-model-name", "m", *wanted.engine_flags)
        fields = (("model", "m"),)
        name = f"yibu {precision}"
        found.append(Side(name, command, "/v1/audio/transcriptions", fields, "/health", "text"))
    return found


def report(rounds: dict[str, list[Round]], wanted: argparse.Namespace) -> None:
    numbers = [name for name in asdict(next(iter(rounds.values()))[0]) if name != "texts"]
    medians = {
        name: {n: statistics.median(getattr(r, n) for r in each) for n in numbers}
        for name, each in rounds.items()
    }
    print(f"machine  {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, "
          f"Python {platform.python_version()}")  # fmt: skip
    print(f"load     {wanted.clients} clients × {wanted.requests} clips of {wanted.seconds:g} s, "
          f"medians of {wanted.rounds} rounds, in turn")  # fmt: skip
    for name, values in medians.items():
        print(f"\n{name}")
        print(f"  throughput      {values['throughput']:8.2f} audio-s/s")
        print(
            f"  latency         {values['latency_p50']:8.2f} s p50, {values['latency_p99']:.2f} s p99"
        )
        print(f"  one clip alone  {values['alone']:8.2f} s")
        print(f"  probe meanwhile {1000 * values['probe_p50']:8.1f} ms p50, "
              f"{1000 * values['probe_p99']:.1f} ms p99")  # fmt: skip
        print(
            f"  resident        {values['resident_idle']:8.0f} MiB, peak {values['resident_peak']:.0f}, "
            f"of it anonymous {values['anonymous_peak']:.0f}"
        )
        print(f"  ready after     {values['start']:8.1f} s, failed requests {values['failed']:.0f}")
    base = next(iter(medians))
    for name, values in medians.items():
        if name == base:
            continue
        theirs = medians[base]
        pairs = zip(rounds[base][0].texts, rounds[name][0].texts, strict=True)
        print(f"\n{name} over {base}: throughput {values['throughput'] / theirs['throughput']:.2f}×, "
              f"one clip alone {values['alone'] / theirs['alone']:.2f}× its latency, "
              f"texts alike {statistics.mean(likeness(*pair) for pair in pairs):.2%}")  # fmt: skip
    if wanted.json:
        wanted.json.write_text(json.dumps({n: [asdict(r) for r in e] for n, e in rounds.items()}))


def likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one.strip(), other.strip(), autojunk=False).ratio()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--vad", type=Path)
    parser.add_argument("--kind", choices=("sensevoice", "whisper"), default="sensevoice")
    parser.add_argument("--script-python", type=Path, help="leave out to measure yibu alone")
    parser.add_argument("--engine-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--engine-flags", nargs="*", default=[], help="e.g. --device=cuda")
    parser.add_argument("--precisions", default="auto", help="yibu's, comma-separated")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=3, help="of each client")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=Path, nargs="*", help="speech files to cut clips from")
    parser.add_argument("--log", type=Path, default=Path("speech-benchmark.log"))
    parser.add_argument("--json", type=Path, help="write every round here")
    wanted = parser.parse_args()
    clips = (
        read(wanted.clips, wanted.clients, wanted.seconds)
        if wanted.clips
        else speak(wanted.clients, wanted.seconds)
    )
    rounds: dict[str, list[Round]] = {}
    for number in range(wanted.rounds):
        for side in sides(wanted):
            print(f"round {number + 1}: {side.name}", file=sys.stderr, flush=True)
            rounds.setdefault(side.name, []).append(await one_round(side, clips, wanted))
    report(rounds, wanted)


if __name__ == "__main__":
    asyncio.run(main())

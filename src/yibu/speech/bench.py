"""Compares precisions of one model on the user's own files: speed, memory and text.

``python -m yibu.speech.bench --model DIR FILE…`` (what ``yibu bench`` runs for speech). Each
precision is measured in a process of its own, since a runtime keeps what it once allocated. The
first precision named is the one whose text the others are compared with. Results go to stdout
(a table, or JSON lines with ``--json``), talk goes to stderr.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from yibu.errors import InvalidRequestError, UsageError, YibuError
from yibu.messages import joined, tr
from yibu.speech.cores import physical_cores
from yibu.speech.metrics import resident_bytes
from yibu.speech.settings import EngineLimits, SpeechSettings
from yibu.speech.types import RecognitionOptions, Recognized, Segment

_PRECISIONS = ("fp32", "bf16", "int8")
_BATCH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One precision on all files. Times are seconds, memory bytes."""

    precision: str
    texts: list[str]
    audio: float
    load: float
    segment: float
    """Decoding and VAD."""
    recognize: float
    resident: float

    @property
    def speed(self) -> float:
        """Audio seconds a second, end to end."""
        return self.audio / (self.segment + self.recognize)


@dataclass(frozen=True, slots=True)
class TextDifference:
    """Where two texts differ: characters of one and the other."""

    file: str
    before: str
    after: str
    context: str


def measure(model: Path, vad: Path | None, precision: str, device: str, threads: int,
            language: str, files: Sequence[Path]) -> Measured:  # fmt: skip
    """Load the model at one precision and run every file, after a warm-up on the first."""
    from yibu.speech.loading import load

    started = time.perf_counter()
    loaded = load(
        SpeechSettings(model, vad=vad, precision=precision, device=device, threads=threads)
    )
    load_seconds = time.perf_counter() - started
    options = RecognitionOptions(language=language)
    texts: list[str] = []
    audio = segment_seconds = recognize_seconds = 0.0
    for number, file in enumerate(files):
        started = time.perf_counter()
        try:
            segments, seconds = _segments(file, loaded.segmenter)
        except InvalidRequestError as error:
            raise UsageError(joined(": ", (str(file), error.message))) from error
        segment_seconds += time.perf_counter() - started
        if number == 0 and segments:
            loaded.recognizer.recognize(segments[:1], [options])
        started = time.perf_counter()
        with ThreadPoolExecutor(loaded.parallel) as pool:
            answers = pool.map(
                lambda batch: loaded.recognizer.recognize(batch, [options] * len(batch)),
                _batches(segments, loaded.parallel),
            )
            results = [result for answer in answers for result in answer]
        recognize_seconds += time.perf_counter() - started
        audio += seconds
        texts.append(_text(results))
    return Measured(
        loaded.recognizer.precision, texts, audio, load_seconds, segment_seconds,
        recognize_seconds, resident_bytes(),
    )  # fmt: skip


def differences(file: str, before: str, after: str) -> list[TextDifference]:
    """Every stretch in which ``after`` is not ``before``."""
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return [
        TextDifference(file, before[a:b], after[c:d], before[max(0, a - 8) : b + 8])
        for kind, a, b, c, d in matcher.get_opcodes()
        if kind != "equal"
    ]


def changed_characters(found: Sequence[TextDifference]) -> int:
    """Characters that were replaced, left out or added."""
    return sum(max(len(each.before), len(each.after)) for each in found)


def _segments(file: Path, segmenter) -> tuple[list[Segment], float]:  # type: ignore[no-untyped-def]
    from yibu.speech.audio.decoding import Decoder

    session = segmenter.session()
    segments: list[Segment] = []
    with file.open("rb") as opened:
        decoder = Decoder(opened, EngineLimits(audio_seconds=24 * 3600, decode_seconds=3600))
        try:
            while (samples := decoder.read(8.0)) is not None:
                segments += session.feed(samples)
        finally:
            decoder.close()
    return segments + session.finish(), decoder.seconds


def _batches(segments: Sequence[Segment], parallel: int) -> list[list[Segment]]:
    """Segments in batches of even length, enough for all threads."""
    seconds = sum(segment.duration for segment in segments)
    most = min(_BATCH_SECONDS, seconds / parallel)
    batches: list[list[Segment]] = []
    room = 0.0
    for segment in segments:
        room -= segment.duration
        if room < 0 or not batches:
            batches.append([])
            room = most - segment.duration
        batches[-1].append(segment)
    return batches


def _text(results: Sequence[Recognized]) -> str:
    from yibu.speech.answers.formats import pieces

    return "".join(pieces(results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and compare. Returns 0, 1 when a precision failed, 2 on wrong usage."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    for file in parsed.files:
        if not file.is_file():
            parser.error(tr("There is no file {file}.", file=file))
    if parsed.only:
        return _child(parsed)
    measured: dict[str, Measured] = {}
    for precision in parsed.precisions.split(","):
        print(f"measuring {precision} …", file=sys.stderr, flush=True)
        result = _in_a_process(parsed, precision)
        if result is not None:
            measured[precision] = result
    if not measured:
        return 1
    _report(measured, [str(file) for file in parsed.files], as_json=parsed.json)
    return 0


def _child(parsed: argparse.Namespace) -> int:
    try:
        result = measure(
            parsed.model, parsed.vad, parsed.only, parsed.device, parsed.threads,
            parsed.language, parsed.files,
        )  # fmt: skip
    except YibuError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(result), ensure_ascii=False))
    return 0


def _in_a_process(parsed: argparse.Namespace, precision: str) -> Measured | None:
    command = [sys.executable, "-m", "yibu.speech.bench", "--only", precision]
    command += ["--model", str(parsed.model), "--device", parsed.device]
    command += ["--threads", str(parsed.threads), "--language", parsed.language]
    command += ["--vad", str(parsed.vad)] if parsed.vad else []
    environment = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", **os.environ}
    ended = subprocess.run(
        [*command, *map(str, parsed.files)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    if ended.returncode:
        print(f"{precision} cannot be measured, see above", file=sys.stderr)
        return None
    return Measured(**json.loads(ended.stdout.splitlines()[-1]))


def _report(measured: dict[str, Measured], files: Sequence[str], *, as_json: bool) -> None:
    baseline_name, baseline = next(iter(measured.items()))
    for name, result in measured.items():
        found = [
            each
            for file, before, after in zip(files, baseline.texts, result.texts, strict=True)
            for each in differences(file, before, after)
        ]
        characters = max(1, sum(map(len, baseline.texts)))
        changed = changed_characters(found)
        if as_json:
            line = asdict(result) | {
                "asked": name,
                "speed": result.speed,
                "compared_with": baseline_name,
                "changed_characters": changed,
                "of_characters": characters,
                "differences": [asdict(each) for each in found],
            }
            print(json.dumps(line, ensure_ascii=False))
            continue
        print(
            f"{name:5} {result.speed:7.1f} audio-s/s  {result.speed / baseline.speed:5.2f}×  "
            f"{result.resident / 2**20:6.0f} MiB  {changed} of {characters} characters differ "
            f"from {baseline_name} ({100 * changed / characters:.2f} %)"
        )
        for each in found:
            print(f"      {each.file}: …{each.context}…  {each.before!r} → {each.after!r}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m yibu.speech.bench", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--vad", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--language", default="auto")
    parser.add_argument("--precisions", default=",".join(_PRECISIONS), help="comma-separated")
    parser.add_argument("--json", action="store_true", help="one JSON object a precision")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())

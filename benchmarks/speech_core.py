"""What recognition costs without HTTP: by precision and shape, against the script's own call.

    python benchmarks/speech_core.py MODEL_DIR VAD_DIR CLIP.wav [--reference] [--rounds 3]

MODEL_DIR may be the random one of scripts/make_fullsize_sensevoice.py: speed and memory do not
depend on what the weights say. CLIP.wav is 16 kHz mono 16-bit speech; it is repeated to fill
each shape. Every precision runs in a process of its own, one after the other in turns, and the
medians over the rounds are printed. `--reference` adds FunASR's AutoModel with the script's
arguments (needs the environment speech-torch) and compares the texts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np

from yibu.speech.features import fbank
from yibu.speech.loading import load
from yibu.speech.types import RecognitionOptions, Segment

SHAPES = ((1, 10.0), (8, 10.0), (16, 10.0), (1, 30.0), (1, 2.0), (16, 2.0))
"""(segments, seconds each)."""
PRECISIONS = ("fp32", "bf16", "int8")


def read_clip(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (16000, 1, 2):
            raise SystemExit(f"{path}: 16 kHz, mono and 16 bit expected")
        return np.frombuffer(file.readframes(1 << 26), "<i2").astype(np.float32) / 32768


def resident_mb() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) // 1024


def measure(name: str, arguments: argparse.Namespace) -> dict:
    """One process's figures: seconds for each shape, memory, and what was recognized."""
    clip = read_clip(arguments.clip)
    reference = name == "reference"
    began = time.perf_counter()
    loaded = load(
        arguments.model_dir,
        vad_dir=arguments.vad_dir,
        precision="auto" if reference else name,
        device="cpu",
        threads=arguments.threads,
        path="reference" if reference else "fast",
    )
    figures: dict = {"load_s": time.perf_counter() - began, "seconds": {}, "whole_clip_s": []}
    for count, seconds in SHAPES:
        if reference and count > 1:
            continue  # it runs segments one by one: the first shape says it all
        samples = np.resize(clip, int(seconds * 16000))
        segments = [Segment(0.0, samples)] * count
        options = [RecognitionOptions()] * count
        loaded.recognizer.recognize(segments[:1], options[:1])
        began = time.perf_counter()
        loaded.recognizer.recognize(segments, options)
        figures["seconds"][f"{count}x{seconds:g}"] = time.perf_counter() - began
    for _ in range(2):
        began = time.perf_counter()
        session = loaded.segmenter.session()
        segments = session.feed(clip) + session.finish()
        answers = loaded.recognizer.recognize(segments, [RecognitionOptions()] * len(segments))
        figures["whole_clip_s"].append(time.perf_counter() - began)
    figures["raw"] = " ".join(answer.raw for answer in answers)
    figures["resident_mb"] = resident_mb()
    if not reference:
        minute = np.resize(clip, 60 * 16000)
        began = time.perf_counter()
        fbank(minute)
        figures["fbank_ms_per_s"] = (time.perf_counter() - began) / 60 * 1000
        session = loaded.segmenter.session()
        began = time.perf_counter()
        session.feed(minute)
        session.finish()
        figures["fbank_and_vad_ms_per_s"] = (time.perf_counter() - began) / 60 * 1000
    return figures


def in_child(name: str) -> dict:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def report(results: dict[str, list[dict]], clip_seconds: float) -> None:
    print(f"audio-seconds per second, median of {len(next(iter(results.values())))} rounds")
    shapes = [f"{count}x{seconds:g}" for count, seconds in SHAPES]
    print("".join(f"{title:>11}" for title in ["", *shapes, "clip ms", "RSS MB", "load s"]))
    for name, rounds in results.items():
        cells = []
        for (count, seconds), shape in zip(SHAPES, shapes, strict=True):
            took = [r["seconds"][shape] for r in rounds if shape in r["seconds"]]
            cells.append(f"{count * seconds / statistics.median(took):.1f}" if took else "-")
        cells.append(f"{statistics.median(min(r['whole_clip_s']) for r in rounds) * 1000:.0f}")
        cells.append(f"{statistics.median(r['resident_mb'] for r in rounds):.0f}")
        cells.append(f"{statistics.median(r['load_s'] for r in rounds):.1f}")
        print("".join(f"{cell:>11}" for cell in [name, *cells]))
    fast = [r for name, rounds in results.items() if name != "reference" for r in rounds]
    for key in ("fbank_ms_per_s", "fbank_and_vad_ms_per_s"):
        print(f"{key}: {statistics.median(r[key] for r in fast):.2f}")
    print(f"clip: {clip_seconds:.2f} s")
    if "reference" in results:
        said = results["reference"][0]["raw"]
        for name, rounds in results.items():
            print(f"{name}: text {'identical' if rounds[0]['raw'] == said else 'differs'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("vad_dir", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    names = arguments.precisions + (["reference"] if arguments.reference else [])
    results: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            results[name].append(in_child(name))
    report(results, len(read_clip(arguments.clip)) / 16000)


if __name__ == "__main__":
    main()

"""What decoding costs: CPU milliseconds for a second of audio, frame by frame and many at a time.

    python -m benchmarks.speech_decoding [--rounds 5]

with the Python of a speech environment, from the repository. Both sides run in turns in one process;
the medians are printed.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

import numpy as np
from tests.speech.server.media import FORMATS, Format, encode

from yibu.speech.audio import mixing
from yibu.speech.audio.decoding import Decoder
from yibu.speech.settings import EngineLimits

SECONDS = 60
NAMES = ("wav 16k mono", "mp3", "m4a", "flac", "ogg opus", "webm opus")
TWENTY_FOUR = Format("wav 24k mono", "wav", "pcm_s16le", 24_000, "mono")


def milliseconds(data: bytes) -> float:
    began = time.process_time()
    decoder = Decoder(io.BytesIO(data), EngineLimits())
    while decoder.read(8.0) is not None:
        pass
    decoder.close()
    return (time.process_time() - began) / SECONDS * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    noise = np.random.default_rng(0).normal(0, 0.1, SECONDS * 16_000).astype(np.float32)
    together = mixing._TOGETHER
    print(f"{'CPU ms a second of audio':<26}{'one by one':>12}{'together':>12}")
    for how in (*(how for how in FORMATS if how.name in NAMES), TWENTY_FOUR):
        data = encode(noise, how)
        found: dict[int, list[float]] = {1: [], together: []}
        for _ in range(rounds):
            for samples, taken in found.items():
                mixing._TOGETHER = samples
                taken.append(milliseconds(data))
        one, many = (statistics.median(taken) for taken in found.values())
        print(f"{how.name:<26}{one:>12.2f}{many:>12.2f}")


if __name__ == "__main__":
    main()

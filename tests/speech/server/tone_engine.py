"""The real server with a tiny deterministic model: it names the tone it hears.

A segment's text is the frequency of its strongest tone, so that a test sees at once whether one
caller's audio ended in another's answer. Switches in the environment: ``TONE_COST`` seconds of
computing a second of audio, ``TONE_BROKEN`` a frequency that makes the model raise,
``TONE_LOAD_SECONDS``, ``TONE_LOAD_FAILS``.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np

from yibu.errors import UnsupportedError
from yibu.speech.loading import Loaded
from yibu.speech.program import main
from yibu.speech.settings import SpeechSettings
from yibu.speech.types import SAMPLE_RATE, RecognitionOptions, Recognized, Samples, Segment, Word

HOP = SAMPLE_RATE // 10


def tone_of(samples: Samples) -> int:
    """The strongest frequency in Hz, to the next ten."""
    spectrum = np.abs(np.fft.rfft(samples))
    return round(float(np.argmax(spectrum)) * SAMPLE_RATE / len(samples) / 10) * 10


class ToneRecognizer:
    name = "tone"
    languages = frozenset({"auto", "zh", "en", "yue", "ja", "ko", "nospeech"})
    tasks = frozenset({"transcribe"})
    precision = "fp32"
    takes_hotwords = False
    tells_times = False

    def __init__(self) -> None:
        self.cost = float(os.environ.get("TONE_COST", "0"))
        self.broken = int(os.environ.get("TONE_BROKEN", "0"))
        self.thread = threading.get_ident()

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[RecognitionOptions]
    ) -> list[Recognized]:
        assert threading.get_ident() == self.thread, "the model is used by a second thread"
        time.sleep(self.cost * sum(segment.duration for segment in segments))
        return [self.one(*item) for item in zip(segments, options, strict=True)]

    def one(self, segment: Segment, options: RecognitionOptions) -> Recognized:
        tone = tone_of(segment.samples)
        if tone == self.broken:
            raise RuntimeError(f"cannot bear {tone} Hz")
        text = f"{tone}Hz"
        return Recognized(
            text=text,
            start=segment.start,
            end=segment.end,
            language="en" if options.language == "auto" else options.language,
            emotion="NEUTRAL",
            events=("Speech",),
            words=(Word(text, segment.start, segment.end),) if options.words else (),
            raw=text,
            tokens=(tone,),
        )


class EnergySegmenter:
    """Loud tenths of a second, joined; at most ten seconds a segment."""

    name = "energy"

    def session(self) -> EnergySession:
        return EnergySession()


class EnergySession:
    def __init__(self) -> None:
        self.rest = np.zeros(0, np.float32)
        self.position = 0
        self.loud: list[Samples] = []

    def feed(self, samples: Samples) -> list[Segment]:
        self.rest = np.concatenate([self.rest, samples])
        segments = []
        while len(self.rest) >= HOP:
            hop, self.rest = self.rest[:HOP], self.rest[HOP:]
            segments += self.take(hop)
        return segments

    def finish(self) -> list[Segment]:
        segments = self.take(self.rest) if len(self.rest) else []
        return segments + self.close()

    def take(self, hop: Samples) -> list[Segment]:
        if np.sqrt(np.mean(hop**2)) < 0.01:
            segments = self.close()
        else:
            self.loud.append(hop.copy())
            segments = []
        self.position += len(hop)
        return segments + (self.close() if len(self.loud) == 100 else [])

    def close(self) -> list[Segment]:
        if not self.loud:
            return []
        samples = np.concatenate(self.loud)
        self.loud = []
        # from take() the quiet hop at hand is not counted yet; the loud ones end before it
        return [Segment((self.position - len(samples)) / SAMPLE_RATE, samples)]


def load(settings: SpeechSettings) -> Loaded:
    time.sleep(float(os.environ.get("TONE_LOAD_SECONDS", "0")))
    if os.environ.get("TONE_LOAD_FAILS"):
        raise UnsupportedError(f"{settings.model} cannot be loaded", hint="look inside")
    return Loaded(ToneRecognizer(), EnergySegmenter(), ("a note from the loader",))


if __name__ == "__main__":
    sys.exit(main(load=load))

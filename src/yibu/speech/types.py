"""Types shared by the engine's parts. Times are seconds, audio is 16 kHz mono float32 in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
"""Sampling rate in Hz of every sample array after the decoder."""

Samples = npt.NDArray[np.float32]
"""Shape [n]."""

Features = npt.NDArray[np.float32]
"""Log-mel filter bank, shape [frames, 80], a frame each 10 ms."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech that the segment rule cut out of one file."""

    start: float
    """Seconds from the beginning of the file."""
    samples: Samples
    """Empty where the recognizer takes ``features`` alone: they are half as large."""
    features: Features | None = None
    """The filter bank where the segmenter computed one; the recognizer may reuse it."""
    length: int = 0
    """Length in samples, where those are left out."""

    @property
    def duration(self) -> float:
        return max(len(self.samples), self.length) / SAMPLE_RATE

    @property
    def end(self) -> float:
        return self.start + self.duration

    def after(self, frames: int) -> Segment:
        """The segment without its first ``frames`` of 10 ms."""
        samples = frames * SAMPLE_RATE // 100
        return replace(
            self,
            start=self.start + frames / 100,
            samples=self.samples[samples:],
            features=None if self.features is None else self.features[frames:],
            length=max(0, self.length - samples),
        )

    def before(self, seconds: float) -> Segment:
        """The segment without its last ``seconds``, in frames of 10 ms."""
        frames = int((self.duration - seconds) * 100)
        samples = frames * SAMPLE_RATE // 100
        return replace(
            self,
            samples=self.samples[:samples],
            features=None if self.features is None else self.features[:frames],
            length=min(self.length, samples),
        )


@dataclass(frozen=True, slots=True)
class RecognitionOptions:
    """A request's options for the recognizer."""

    language: str = "auto"
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str | None = None
    temperature: float = 0.0
    words: bool = False
    """Whether to return word timestamps."""
    use_itn: bool = True
    """Inverse text normalisation: digits and punctuation in the text (SenseVoice)."""
    hotwords: tuple[str, ...] = ()
    """Words to listen for (SeACo-Paraformer)."""
    speakers: bool = False
    """Whether to tell speakers apart."""
    punctuated: bool = False
    """Each segment is a text of its own, which gets its punctuation at once; those of a file get it
    together."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word (a character in Chinese) with its time, in seconds of the file."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """How the speech from ``start`` to ``end`` seconds of the file sounds."""

    start: float
    end: float
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recognized:
    """The recognizer's answer for one segment."""

    text: str
    start: float
    end: float
    language: str | None = None
    emotion: str | None = None
    events: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    raw: str = ""
    """The text with the model's own tags, as FunASR gives it."""
    average_logprob: float | None = None
    no_speech_probability: float | None = None
    compression_ratio: float | None = None
    temperature: float = 0.0
    tokens: tuple[int, ...] = field(default=(), repr=False)
    speaker: str | None = None
    """A, B, … as they come, where speakers are told apart."""
    voices: tuple[Voice, ...] = field(default=(), repr=False)
    """What speakers are told apart by, until they are."""


class Recognizer(Protocol):
    """A loaded model. Called from as many threads at once as ``Loaded.parallel`` says; never on the
    event loop."""

    name: str
    languages: frozenset[str]
    """Accepted values of ``language``, ``auto`` among them."""
    tasks: frozenset[str]
    precision: str
    takes_hotwords: bool
    tells_times: bool
    """Whether word times cost next to nothing."""

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[RecognitionOptions]
    ) -> list[Recognized]:
        """One answer a segment, in order; each depends on its own segment alone."""
        ...


class SegmenterSession(Protocol):
    """Segments one file as it is decoded; its memory does not grow with the file."""

    def feed(self, samples: Samples) -> list[Segment]:
        """Take the next samples (any length) and return the segments that are finished."""
        ...

    def finish(self) -> list[Segment]:
        """No more samples: return what is left."""
        ...


@dataclass(frozen=True, slots=True)
class Endpointing:
    """When speech begins and ends on a live stream; seconds."""

    threshold: float = 0.5
    """From 0 to 1: the higher, the surer the VAD has to be."""
    prefix_padding: float = 0.3
    silence: float = 0.5
    """Silence that ends speech."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a streaming model takes sound, in frames of 60 ms: FunASR's ``chunk_size`` [0, 10, 5] and its
    look-backs."""

    frames: int = 10
    """Of a chunk, whose tokens are said."""
    ahead: int = 5
    """After them, which are heard already and said with the next chunk."""
    encoder_look_back: int = 4
    """Earlier chunks that the encoder's layers attend to."""
    decoder_look_back: int = 1


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Speech begins at ``start`` seconds of the stream, padding included."""

    start: float


class UtteranceDetector(Protocol):
    """Finds utterances on one live stream; its memory does not grow with the stream."""

    def feed(self, samples: Samples) -> list[SpeechBegan | Segment]:
        """Take the next samples (any length): what began and what ended, in order."""
        ...

    def finish(self) -> list[SpeechBegan | Segment]:
        """No more samples: speech that has not ended does so now."""
        ...

    @property
    def uneventful(self) -> int:
        """The number of next samples in which nothing begins, ends or becomes certain to end."""
        ...

    def speech(self) -> Segment | None:
        """The speech that has not ended, so far; None while nobody speaks."""
        ...

    def ending(self) -> Segment | None:
        """The utterance as it ends if the silence that has begun goes on; None where it may end
        elsewhere."""
        ...


class Segmenter(Protocol):
    """A loaded VAD with the segment rule over it. Sessions run on worker threads."""

    name: str

    def session(self) -> SegmenterSession: ...

    def utterances(self, endpointing: Endpointing) -> UtteranceDetector:
        """Raises UnsupportedError where it cannot be used on a live stream."""
        ...

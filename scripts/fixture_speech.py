"""Synthetic speech with exact word marks, from espeak-ng: the fixture's training material."""

from __future__ import annotations

import io
import subprocess
import wave
from dataclasses import dataclass

import numpy as np
from scipy.signal import resample_poly

RATE = 16_000
ENGLISH = {
    word: pieces.split()
    for word, pieces in {
        "zero": "▁ze ro", "one": "▁one", "two": "▁two", "three": "▁three", "four": "▁four",
        "five": "▁five", "six": "▁six", "seven": "▁se ven", "eight": "▁eight", "nine": "▁nine",
        "start": "▁start", "stop": "▁stop", "open": "▁o pen", "close": "▁close",
        "music": "▁mu sic", "window": "▁win dow", "louder": "▁loud er", "left": "▁left",
        "right": "▁right", "please": "▁please",
    }.items()
}  # fmt: skip
CHINESE = {
    word: list(word)
    for word in (
        *"零一二三四五六七八九请",
        *("打开", "关闭", "音乐", "窗户", "大声", "左边", "右边", "开始", "停止"),
    )
}
VOCABULARY = {"en": ENGLISH, "zh": CHINESE}
_VOICES = {"en": ("en-us", "en-gb", "en-gb-scotland"), "zh": ("cmn",)}


@dataclass(frozen=True)
class Speaker:
    language: str
    voice: str
    pitch: int
    speed: int

    @classmethod
    def draw(cls, language: str, rng: np.random.Generator, *, held_out: bool) -> Speaker:
        """A speaker; those held out have variants and speeds of their own."""
        variants = ("+m7", "+f4") if held_out else ("", "+m1", "+m3", "+f1", "+f2", "+m5")
        pitch = int(rng.choice((30, 50, 70) if held_out else (25, 50, 75)))
        speed = int(rng.choice((145,) if held_out else (130, 160)))
        voice = rng.choice(_VOICES[language]) + rng.choice(variants)
        return cls(language, str(voice), pitch, speed)


@dataclass(frozen=True)
class Mark:
    """A word and its first and last second."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    speaker: Speaker
    samples: np.ndarray
    marks: list[Mark]


class Synthesizer:
    """Speaks words one by one and remembers them."""

    def __init__(self) -> None:
        self._spoken: dict[tuple[Speaker, str], np.ndarray] = {}

    def word(self, speaker: Speaker, word: str) -> np.ndarray:
        key = (speaker, word)
        if key not in self._spoken:
            self._spoken[key] = _trimmed(_espeak(speaker, word))
        return self._spoken[key]

    def utterance(
        self, speaker: Speaker, words: list[str], rng: np.random.Generator, *, noise: bool
    ) -> Utterance:
        """``words`` with 120 to 300 ms between them and silence around them."""
        parts = [np.zeros(int(rng.uniform(0.15, 0.6) * RATE), np.float32)]
        marks = []
        for word in words:
            spoken = self.word(speaker, word)
            start = sum(map(len, parts))
            marks.append(Mark(word, start / RATE, (start + len(spoken)) / RATE))
            parts += [spoken, np.zeros(int(rng.uniform(0.12, 0.3) * RATE), np.float32)]
        parts.append(np.zeros(int(rng.uniform(0.15, 0.5) * RATE), np.float32))
        samples = np.concatenate(parts) * np.float32(rng.uniform(0.3, 1.0))
        if noise:
            level = np.float32(10 ** rng.uniform(-4.5, -2.3))
            samples = samples + level * rng.standard_normal(len(samples), dtype=np.float32)
        return Utterance(speaker, samples, marks)


def _espeak(speaker: Speaker, word: str) -> np.ndarray:
    command = [
        "espeak-ng", "--stdout", "-v", speaker.voice, "-p", str(speaker.pitch),
        "-s", str(speaker.speed), word,
    ]  # fmt: skip
    spoken = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes() or 1 << 24), np.int16)
    scaled = resample_poly(samples.astype(np.float64) / 32768, RATE, rate)
    return scaled.astype(np.float32)


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence before and after, so that marks stand where the sound does."""
    frames = samples[: len(samples) // 80 * 80].reshape(-1, 80)
    loud = np.flatnonzero(np.abs(frames).max(axis=1) > 0.01 * np.abs(samples).max())
    return frames[loud[0] : loud[-1] + 1].reshape(-1)

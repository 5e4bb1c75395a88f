"""Silero VAD on a live stream: utterances that end at a pause."""

from __future__ import annotations

from typing import Any

import numpy as np

from yibu.speech.types import SAMPLE_RATE, Endpointing, Samples, Segment, SpeechBegan
from yibu.speech.vad.silero_frames import FRAME, MIN_SPEECH_FRAMES, SileroFrames

_MAX = int(29.0 * SAMPLE_RATE)
"""Whisper's window, less the paddings."""
_PAD_AFTER = int(0.2 * SAMPLE_RATE)
_HYSTERESIS = 0.15
"""Speech goes on while its probability is no more than this below the threshold."""


class SileroUtterances:
    """See ``UtteranceDetector``. Keeps the open utterance's samples, or the padding."""

    def __init__(self, model: Any, endpointing: Endpointing) -> None:
        self._frames = SileroFrames(model)
        self._rule = endpointing
        self._padding = int(endpointing.prefix_padding * SAMPLE_RATE)
        self._keep = self._padding + MIN_SPEECH_FRAMES * FRAME
        self._rest: Samples = np.empty(0, np.float32)
        """Samples of an incomplete frame."""
        self._held: Samples = np.empty(0, np.float32)
        self._origin = 0
        """Position of ``_held`` in the stream, in samples."""
        self._run = 0
        """Consecutive frames of speech, while no utterance is open."""
        self._start: int | None = None
        self._voiced = 0
        """The end of the last frame with speech."""
        self._floor = 0

    def feed(self, samples: Samples) -> list[SpeechBegan | Segment]:
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // FRAME * FRAME
        self._rest = joined[whole:].copy()
        return self._judge(joined[:whole])

    def finish(self) -> list[SpeechBegan | Segment]:
        total = self._origin + len(self._held) + len(self._rest)
        missing = -len(self._rest) % FRAME
        found = self._judge(np.pad(self._rest, (0, missing))) if len(self._rest) else []
        self._rest = np.empty(0, np.float32)
        if self._start is not None:
            found.append(self._close(min(total, self._voiced + _PAD_AFTER)))
        return found

    @property
    def uneventful(self) -> int:
        frames = 0 if self._start is not None else MIN_SPEECH_FRAMES - self._run - 1
        return (frames + 1) * FRAME - len(self._rest) - 1

    def speech(self) -> Segment | None:
        if self._start is None:
            return None
        return self._segment(self._start, self._origin + len(self._held))

    def ending(self) -> Segment | None:
        now = self._origin + len(self._held)
        end = self._voiced + min(_PAD_AFTER, int(self._rule.silence * SAMPLE_RATE))
        return None if self._start is None or now < end else self._segment(self._start, end)

    def _judge(self, samples: Samples) -> list[SpeechBegan | Segment]:
        now = self._origin + len(self._held)
        self._held = np.concatenate([self._held, samples])
        found: list[SpeechBegan | Segment] = []
        for probability in self._frames.infer(samples):
            now += FRAME
            if self._start is None:
                self._run = self._run + 1 if probability >= self._rule.threshold else 0
                if self._run >= MIN_SPEECH_FRAMES:
                    start = now - self._run * FRAME - self._padding
                    self._start, self._voiced = max(start, self._floor, self._origin), now
                    found.append(SpeechBegan(self._start / SAMPLE_RATE))
                continue
            if probability >= self._rule.threshold - _HYSTERESIS:
                self._voiced = now
            if now - self._voiced >= self._rule.silence * SAMPLE_RATE:
                found.append(self._close(min(now, self._voiced + _PAD_AFTER)))
            elif now - self._start + FRAME > _MAX:
                found.append(self._close(now))
        self._forget()
        return found

    def _close(self, end: int) -> Segment:
        assert self._start is not None
        segment = self._segment(self._start, end)
        self._start, self._floor, self._run = None, end, 0
        return segment

    def _segment(self, start: int, end: int) -> Segment:
        samples = self._held[start - self._origin : end - self._origin].copy()
        return Segment(start / SAMPLE_RATE, samples)

    def _forget(self) -> None:
        if self._start is not None:
            first = self._start
        else:
            first = max(self._floor, self._origin + len(self._held) - self._keep)
        self._held = self._held[first - self._origin :].copy()
        self._origin = first

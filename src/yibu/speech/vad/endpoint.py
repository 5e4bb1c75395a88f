"""Turns a silence probability a frame into spans of speech, as FSMN-VAD's decoder does.

A window of 200 ms slides over the frames. Speech begins once 150 ms of it are speech, counted
from 400 ms earlier; it ends when silence has lasted as long as the patience, or at the cap.
The behaviour is that of FunASR's ``FsmnVADStreaming`` with the published configuration, with
two differences: patience shrinks as a stretch of speech grows (FunASR's shrinks in steps of a
60 s chunk), and a stretch never exceeds the cap (FunASR's exceeds it by one frame). FunASR's
decibel and signal-to-noise thresholds, both -100 dB, can never act and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class EndpointRule:
    """All lengths in frames of 10 ms."""

    window: int = 20
    to_speech: int = 15
    """Frames of speech in the window that begin speech."""
    to_silence: int = 15
    """Frames of speech in the window at or below which silence begins."""
    lookback: int = 20
    """Speech begins this much before the window in which it was noticed."""
    lookahead: int = 10
    """Speech ends this much after the first frame of silence."""
    threshold: float = 0.5
    """A frame is speech where p(speech) >= p(silence) + threshold (FunASR 1.4.16 uses 0.5)."""
    patience: tuple[tuple[int, int], ...] = (
        (1500, 185),
        (2000, 65),
        (2500, 25),
        (3000, 5),
    )
    """(length of the stretch so far, frames of silence that end it), the first that fits.
    185 frames and the 150 ms of the window make the 2 s that FunASR waits."""
    cap: int = 3000


@dataclass(frozen=True, slots=True)
class Frames:
    """Speech from frame ``start`` up to, not including, frame ``end``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Opened:
    """Speech begins at frame ``start``; where it ends is not known yet."""

    start: int


class Endpointer:
    """The state of one file. Feed it every frame once, in order."""

    def __init__(self, rule: EndpointRule) -> None:
        self._rule = rule
        self._frame = 0
        self._last_end = 0
        self._start: int | None = None
        self._silence = 0
        self._recent: list[bool] = []
        self._count = 0
        self._speaking = False
        self._reset_window()

    @property
    def earliest(self) -> int:
        """No span that is yet to come begins before this frame."""
        if self._start is not None:
            return self._start
        rule = self._rule
        return max(self._last_end, self._frame - rule.window - rule.lookback)

    @property
    def start(self) -> int | None:
        """Where the speech began that has not ended; None while nobody speaks."""
        return self._start

    @property
    def ending(self) -> Frames | None:
        """The span that ends here unless the silence is broken; None before that is certain."""
        if self._start is None or self._speaking or self._silence <= self._rule.lookahead:
            return None
        first = self._frame - self._silence
        return Frames(self._start, first + self._rule.lookahead + 1)

    @property
    def uneventful(self) -> int:
        """The next frames in which nothing can begin, end or become certain to end, whatever they are."""
        rule = self._rule
        if self._start is None:
            return rule.to_speech - self._count - 1
        length = self._frame - self._start
        if self._speaking:
            change = self._count - rule.to_silence + rule.lookahead + 1
        elif self._silence <= rule.lookahead:
            change = rule.lookahead + 1 - self._silence
        else:
            change = self._patience(length) - self._silence
        return max(1, min(change, rule.cap - length)) - 1

    def feed(self, silence: npt.NDArray[np.float32]) -> list[Frames]:
        """Take p(silence) of the next frames; return the spans that ended in them."""
        return [event for event in self.events(silence) if isinstance(event, Frames)]

    def events(self, silence: npt.NDArray[np.float32]) -> list[Opened | Frames]:
        """The same, with the beginnings of spans."""
        speech = (1.0 - silence) >= silence + self._rule.threshold
        events: list[Opened | Frames] = []
        for is_speech in speech.tolist():
            before = self._start
            span = self._step(is_speech)
            if span is not None:
                events.append(span)
            elif before is None and self._start is not None:
                events.append(Opened(self._start))
        return events

    def finish(self) -> list[Frames]:
        """The file is over: speech that has not ended does so now."""
        if self._start is None:
            return []
        return [self._close(self._frame)]

    def _step(self, is_speech: bool) -> Frames | None:
        rule = self._rule
        now = self._frame
        self._frame += 1
        slot = now % rule.window
        self._count += is_speech - self._recent[slot]
        self._recent[slot] = is_speech
        changed = False
        if not self._speaking and self._count >= rule.to_speech:
            self._speaking = changed = True
        elif self._speaking and self._count <= rule.to_silence:
            self._speaking, changed = False, True
        if self._start is None:
            if changed and self._speaking:
                self._start = max(self._last_end, now - rule.window - rule.lookback)
                self._silence = 0
            return None
        if self._speaking or changed:
            self._silence = 0
        else:
            self._silence += 1
            patience = self._patience(now + 1 - self._start)
            if self._silence >= patience:
                return self._close(now + 1 - max(0, patience - rule.lookahead - 1))
        if now + 1 - self._start >= rule.cap:
            return self._close(now + 1)
        return None

    def _patience(self, length: int) -> int:
        for limit, patience in self._rule.patience:
            if length <= limit:
                return patience
        return self._rule.patience[-1][1]

    def _close(self, end: int) -> Frames:
        assert self._start is not None
        span = Frames(self._start, end)
        self._start = None
        self._last_end = end
        self._reset_window()
        return span

    def _reset_window(self) -> None:
        self._recent = [False] * self._rule.window
        self._count = 0
        self._speaking = False
        self._silence = 0

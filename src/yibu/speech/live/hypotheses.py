"""Partial texts of an open utterance: what to compute next, and what can be shown."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from yibu.speech.answers.formats import separated
from yibu.speech.jobs import Answer, Job
from yibu.speech.live.agreement import Agreement
from yibu.speech.models.paraformer_text import GOES_ON
from yibu.speech.types import SAMPLE_RATE, Chunking, RecognitionOptions, Recognized, Segment, Word
from yibu.speech.words import behind

if TYPE_CHECKING:  # OpenVINO is not in whisper's environment
    from yibu.speech.models.paraformer_online import OnlineParaformer

_EAGER_FIRST, _PATIENT_FIRST = 0.75, 0.85
"""Seconds of an utterance before it is recognized at all, the pause before it included, where there is time
and where there is none."""
_BACK_SECONDS = 0.3
"""Of its end, without which it is recognized too the first time: two texts must agree before one is shown, and the
second need not be waited for."""
_EAGER_NEWS, _PATIENT_NEWS, _LEAST_NEWS = 0.1, 0.3, 0.2
"""Seconds of speech that a text needs beyond the last one: until one is shown where there is time for it and
where there is none, and after."""
_EAGER_SECONDS = 3.0
"""Of speech in which nothing could be shown; after them the first text is as urgent as others."""
_WINDOW_SECONDS = 4.0
"""Of speech, from which on what is shown is not recognized again, but for its last"""
_CONTEXT_SECONDS = 1.0
"""seconds."""
_STACKED = 6
"""Frames that are one of the model's: the window begins with one."""


class Hypotheses(Protocol):
    """The partial texts of one utterance. Used on the event loop."""

    @property
    def shown(self) -> str:
        """The shown text; never taken back."""
        ...

    @property
    def skipped(self) -> float:
        """Seconds of speech that the next computation skips."""
        ...

    @property
    def whole(self) -> Callable[[Segment], Recognized] | None:
        """The recognizer of the final text, where it is not the batcher's."""
        ...

    def wanted(self, seconds: float, idle: float, share: float) -> bool:
        """Whether to compute another one after ``seconds`` of speech, ``idle`` seconds after the last,
        where partial texts have ``share`` of a worker's time."""
        ...

    def jobs(
        self,
        seconds: float,
        options: RecognitionOptions,
        speech: Callable[[], Segment],
        deliver: Callable[[Answer], None],
    ) -> list[Job]:
        """The jobs of the next computation, of about ``seconds`` of speech."""
        ...

    def heard(self, result: Recognized) -> str:
        """Take a result; returns what can be shown beyond ``shown``."""
        ...

    def heard_whole(self, result: Recognized) -> str:
        """The same, for a result of the final texts' model for the whole utterance."""
        ...


class Reheard:
    """Recognizes the utterance again and again, and shows where consecutive results agree."""

    whole = None

    def __init__(self, interval: float, *, windowed: bool) -> None:
        """``interval`` is the seconds between two texts, once one is shown. ``windowed``: the model tells
        times of words, by which a long utterance costs no more than a short one."""
        self._agreement = Agreement()
        self._interval = interval
        self._windowed = windowed
        self._seconds = 0.0
        """Seconds of speech at the last recognition."""
        self._frames = 0
        """Frames of 10 ms that are not recognized again."""
        self._settled, self._settled_end = "", 0.0
        """The part of the shown text that is not taken from results any more, and when it ends."""

    @property
    def shown(self) -> str:
        return self._agreement.shown

    @property
    def skipped(self) -> float:
        return self._frames / 100

    def wanted(self, seconds: float, idle: float, share: float) -> bool:
        if not self.shown and seconds < _EAGER_SECONDS:
            news = _PATIENT_NEWS - share * (_PATIENT_NEWS - _EAGER_NEWS)
            first = _PATIENT_FIRST - share * (_PATIENT_FIRST - _EAGER_FIRST)
            return seconds >= first - 0.001 and seconds - self._seconds >= news - 0.001
        return seconds - self._seconds >= _LEAST_NEWS and idle >= self._interval

    def jobs(
        self,
        seconds: float,
        options: RecognitionOptions,
        speech: Callable[[], Segment],
        deliver: Callable[[Answer], None],
    ) -> list[Job]:
        frames, new = self._frames, not self._seconds
        self._seconds = seconds
        options = replace(options, words=self._windowed, speakers=False)

        def job(seconds: float, segment: Callable[[], Segment]) -> Job:
            return Job(seconds, options, segment, deliver, final=False, spare=True)

        whole = job(seconds - self.skipped, lambda: speech().after(frames))
        if not new:
            return [whole]
        return [job(seconds - _BACK_SECONDS, lambda: speech().before(_BACK_SECONDS)), whole]

    def heard(self, result: Recognized) -> str:
        text = result.text
        words = [word for word in result.words if word.start + word.end > 2 * self._settled_end]
        if self._settled:
            text = self._settled
            for word in words:
                text += separated(text, word.text)
        new = self._agreement.hypothesis(text, result.end)
        if result.end - result.start > _WINDOW_SECONDS and text.startswith(self.shown):
            self._settle(result, words, text)
        return new

    def heard_whole(self, result: Recognized) -> str:
        return self._agreement.hypothesis(result.text, result.end)

    def _settle(self, result: Recognized, words: Sequence[Word], text: str) -> None:
        """Leave words that are shown out of the next results, and begin those in the longest pause that is
        ``_CONTEXT_SECONDS`` and more before the rest."""
        ends = [len(self._settled)]
        for word in words:
            ends.append(behind(text, ends[-1], [word]))
            if ends[-1] > len(self.shown) or not text[ends[-2] : ends[-1]].endswith(word.text):
                break
        # The mark behind a word is known once the next one is shown too.
        shown = len(ends) - 3
        if shown < 0:
            return
        self._settled, self._settled_end = text[: ends[shown + 1]], words[shown].end
        latest = self._settled_end - _CONTEXT_SECONDS
        before = [word for word in result.words if word.end <= words[shown].end]
        pauses = [
            (after.start - word.end, (word.end + after.start) / 2)
            for word, after in pairwise(before)
            if after.start <= latest
        ]
        if pauses:
            frames = self._frames + int((max(pauses)[1] - result.start) * 100)
            self._frames = frames // _STACKED * _STACKED


class Streamed:
    """Feeds each chunk once to a streaming model, and shows all of its text."""

    def __init__(self, model: OnlineParaformer, chunking: Chunking, *, finals: bool) -> None:
        """``finals``: this model makes the final text too."""
        self.shown = ""
        self.skipped = 0.0
        self.whole = self._hear_end if finals else None
        self._session = model.session(chunking)
        self._heard = 0
        """Samples fed so far."""
        self._tokens: list[str] = []
        self._open: list[str] = []
        """Parts of a word that continues in the next chunk."""
        self._busy = False
        self._lock = threading.Lock()
        """Guards the model's state: a final text may be computed during a partial one."""

    def wanted(self, seconds: float, idle: float, share: float) -> bool:  # noqa: ARG002 - by chunks
        return not self._busy and (seconds - self.skipped) * SAMPLE_RATE >= self._session.stride

    def jobs(
        self,
        seconds: float,
        options: RecognitionOptions,
        speech: Callable[[], Segment],
        deliver: Callable[[Answer], None],
    ) -> list[Job]:
        new, self._busy = seconds - self.skipped, True
        hear = self._hear
        return [Job(new, options, speech, deliver, final=False, spare=True, recognize=hear)]

    def _hear(self, speech: Segment) -> Recognized:
        """The text of the new chunks."""
        with self._lock:
            stride = self._session.stride
            end = len(speech.samples) // stride * stride
            tokens = self._open + self._session.feed(speech.samples[self._heard : end])
            self._heard = max(end, self._heard)
            whole = len(tokens)
            while whole and tokens[whole - 1].endswith(GOES_ON):
                whole -= 1
            self._open = tokens[whole:]
            self._tokens += tokens[:whole]
            return self._answer(speech, tokens[:whole])

    def _hear_end(self, speech: Segment) -> Recognized:
        """The text of a finished utterance."""
        with self._lock:
            rest = self._session.feed(speech.samples[self._heard :], final=True)
            return self._answer(speech, self._tokens + self._open + rest)

    def heard(self, result: Recognized) -> str:
        self._busy = False
        self.skipped = self._heard / SAMPLE_RATE
        new = separated(self.shown, result.text)
        self.shown += new
        return new

    def heard_whole(self, result: Recognized) -> str:  # noqa: ARG002 - another model's
        return ""

    def _answer(self, speech: Segment, tokens: Sequence[str]) -> Recognized:
        return Recognized(self._session.text(tokens), speech.start, speech.end)

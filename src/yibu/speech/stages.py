"""What is made of recognized segments once several of them are there: punctuation, and speakers.

A stage takes the segments of one recording in order and gives them back in order, some of them later.
Its methods run on the pool's threads, one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from yibu.speech.models.campplus import SpeakerNetwork
from yibu.speech.models.punctuation import PunctuationSession, Punctuator
from yibu.speech.models.speakers import SENTENCE_ENDS, by_speaker, turns
from yibu.speech.types import RecognitionOptions, Recognized, Recognizer, Segment, Voice, Word
from yibu.speech.words import behind


class Stage(Protocol):
    """One recording's stage."""

    def feed(self, results: Sequence[Recognized]) -> list[Recognized]: ...

    def finish(self) -> list[Recognized]:
        """No more segments: those that are left."""
        ...


@dataclass(frozen=True, slots=True)
class Finishing:
    """The models beside the recognizer."""

    punctuator: Punctuator | None = None
    speakers: SpeakerNetwork | None = None

    def stages(self, options: RecognitionOptions) -> list[Stage]:
        """The stages that a request asks for, in order."""
        found: list[Stage] = []
        if self.punctuator is not None and options.use_itn:
            found.append(PunctuationStage(self.punctuator))
        if self.speakers is not None and options.speakers:
            found.append(SpeakerStage())
        return found


class FinishingRecognizer:
    """A recognizer whose answers also say how their voices sound, where speakers are to be told, and have
    their punctuation, where each is a text of its own."""

    def __init__(self, recognizer: Recognizer, finishing: Finishing) -> None:
        self.name = recognizer.name
        self.languages = recognizer.languages
        self.tasks = recognizer.tasks
        self.precision = recognizer.precision
        self.takes_hotwords = recognizer.takes_hotwords
        self.tells_times = recognizer.tells_times
        self._recognizer = recognizer
        self._finishing = finishing

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[RecognitionOptions]
    ) -> list[Recognized]:
        """See ``Recognizer`` in ``types.py``."""
        answers = self._recognizer.recognize(segments, options)
        return [self._finished(*one) for one in zip(answers, segments, options, strict=True)]

    def _finished(
        self, answer: Recognized, segment: Segment, options: RecognitionOptions
    ) -> Recognized:
        punctuator, speakers = self._finishing.punctuator, self._finishing.speakers
        if speakers is not None and options.speakers:
            answer = replace(answer, voices=speakers.voices(segment))
        if punctuator is not None and options.punctuated:
            stage = PunctuationStage(punctuator)
            [answer] = [*stage.feed([answer]), *stage.finish()]
        return answer


@dataclass(slots=True)
class _Pending:
    result: Recognized
    words: int
    pieces: list[str] = field(default_factory=list)


class PunctuationStage:
    """Holds a segment until the marks after all of its words are final."""

    def __init__(self, punctuator: Punctuator) -> None:
        self._split = punctuator.split
        self._session: PunctuationSession = punctuator.session()
        self._pending: deque[_Pending] = deque()

    def feed(self, results: Sequence[Recognized]) -> list[Recognized]:
        pieces: list[str] = []
        for result in results:
            # FunASR's text parts all words by spaces, which its model was trained with.
            words = self._split(result.raw or result.text)
            self._pending.append(_Pending(result, len(words)))
            pieces += self._session.feed(words)
        return self._released(pieces)

    def finish(self) -> list[Recognized]:
        return self._released(self._session.finish())

    def _released(self, pieces: Sequence[str]) -> list[Recognized]:
        waiting = iter(self._pending)
        current = next(waiting, None)
        for piece in pieces:
            while current is not None and len(current.pieces) == current.words:
                current = next(waiting, None)
            assert current is not None, "more pieces than words"
            current.pieces.append(piece)
        done: list[Recognized] = []
        while self._pending and len(self._pending[0].pieces) == self._pending[0].words:
            first = self._pending.popleft()
            done.append(_punctuated(first.result, first.pieces))
        return done


def _punctuated(result: Recognized, pieces: Sequence[str]) -> Recognized:
    text = "".join(pieces).strip()
    return replace(result, text=text, words=_marked(result.words, text))


def _marked(words: Sequence[Word], text: str) -> tuple[Word, ...]:
    """``words`` written as in ``text``, each with the marks after it."""
    found: list[Word] = []
    at = 0
    for n, word in enumerate(words):
        end = behind(text, at, [word])
        following = words[n + 1].text[:1].casefold() if n + 1 < len(words) else ""
        while end < len(text) and text[end] in SENTENCE_ENDS and text[end] != following:
            end += 1
        found.append(replace(word, text=text[at:end].strip() or word.text))
        at = end
    return tuple(found)


class SpeakerStage:
    """Holds all segments until the recording's end, and cuts them where the speaker changes."""

    def __init__(self) -> None:
        self._results: list[Recognized] = []
        self._voices: list[Voice] = []

    def feed(self, results: Sequence[Recognized]) -> list[Recognized]:
        for result in results:
            self._voices += result.voices
            self._results.append(replace(result, voices=()))
        return []

    def finish(self) -> list[Recognized]:
        return by_speaker(self._results, turns(self._voices))

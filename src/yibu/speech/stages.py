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
from yibu.speech.models.speakers import speaker_of, turns
from yibu.speech.types import Options, Recognized, Recognizer, Segment, Voice, Word

_SENTENCE_ENDS = frozenset("，。？！、；,.?!;")


class Stage(Protocol):
    """One recording's."""

    def feed(self, results: Sequence[Recognized]) -> list[Recognized]: ...

    def finish(self) -> list[Recognized]:
        """No more segments: those that are left."""
        ...


@dataclass(frozen=True, slots=True)
class Finishing:
    """The models beside the recognizer."""

    punctuator: Punctuator | None = None
    speakers: SpeakerNetwork | None = None

    def stages(self, options: Options) -> list[Stage]:
        """Those that a request asks for, in their order."""
        found: list[Stage] = []
        if self.punctuator is not None and options.use_itn:
            found.append(PunctuationStage(self.punctuator))
        if self.speakers is not None and options.speakers:
            found.append(SpeakerStage())
        return found


class _Around:
    """What a recognizer that adds to another's answers has of it."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.name = recognizer.name
        self.languages = recognizer.languages
        self.tasks = recognizer.tasks
        self.precision = recognizer.precision
        self.takes_hotwords = recognizer.takes_hotwords
        self._recognizer = recognizer


class SpeakerRecognizer(_Around):
    """A recognizer whose answers also say how their voices sound, where speakers are to be told."""

    def __init__(self, recognizer: Recognizer, network: SpeakerNetwork) -> None:
        super().__init__(recognizer)
        self._network = network

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[Options]
    ) -> list[Recognized]:
        """See ``Recognizer`` in ``types.py``."""
        answers = self._recognizer.recognize(segments, options)
        for n, (segment, wanted) in enumerate(zip(segments, options, strict=True)):
            if wanted.speakers:
                answers[n] = replace(answers[n], voices=self._network.voices(segment))
        return answers


class PunctuatingRecognizer(_Around):
    """A recognizer whose answers have their punctuation, where each is a text of its own."""

    def __init__(self, recognizer: Recognizer, punctuator: Punctuator) -> None:
        super().__init__(recognizer)
        self._punctuator = punctuator

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[Options]
    ) -> list[Recognized]:
        """See ``Recognizer`` in ``types.py``."""
        answers = self._recognizer.recognize(segments, options)
        return [
            self._punctuated(answer) if wanted.punctuated else answer
            for answer, wanted in zip(answers, options, strict=True)
        ]

    def _punctuated(self, answer: Recognized) -> Recognized:
        stage = PunctuationStage(self._punctuator)
        [result] = [*stage.feed([answer]), *stage.finish()]
        return result


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
        letters = sum(not character.isspace() for character in word.text)
        end = at
        while end < len(text) and letters:
            letters -= not text[end].isspace()
            end += 1
        following = words[n + 1].text[:1].casefold() if n + 1 < len(words) else ""
        while end < len(text) and text[end] in _SENTENCE_ENDS and text[end] != following:
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
        heard = turns(self._voices)
        found: list[Recognized] = []
        for result in self._results:
            sentences = _sentences(result)
            speakers = [speaker_of(part.start, part.end, heard) for part in sentences]
            found += _by_speaker(result, sentences, speakers)
        return found


@dataclass(frozen=True, slots=True)
class _Sentence:
    start: float
    end: float
    words: tuple[Word, ...]


def _sentences(result: Recognized) -> list[_Sentence]:
    """The words up to each mark; the whole segment where it has no words with times."""
    found: list[_Sentence] = []
    current: list[Word] = []
    for word in result.words:
        current.append(word)
        if word.text[-1:] in _SENTENCE_ENDS:
            found.append(_Sentence(current[0].start, word.end, tuple(current)))
            current = []
    if current:
        found.append(_Sentence(current[0].start, current[-1].end, tuple(current)))
    return found or [_Sentence(result.start, result.end, ())]


def _by_speaker(
    result: Recognized, sentences: Sequence[_Sentence], speakers: Sequence[int]
) -> list[Recognized]:
    if len(set(speakers)) == 1:
        return [replace(result, speaker=_name(speakers[0]))]
    parts: list[tuple[int, list[Word]]] = []
    for sentence, speaker in zip(sentences, speakers, strict=True):
        if not parts or parts[-1][0] != speaker:
            parts.append((speaker, []))
        parts[-1][1].extend(sentence.words)
    texts = _divided(result.text, [[word.text for word in words] for _, words in parts])
    return [
        replace(
            result, text=text, words=tuple(words), start=words[0].start, end=words[-1].end,
            speaker=_name(speaker), raw=text, tokens=result.tokens if n == 0 else (),
        )
        for n, (text, (speaker, words)) in enumerate(zip(texts, parts, strict=True))
    ]  # fmt: skip


def _divided(text: str, parts: Sequence[Sequence[str]]) -> list[str]:
    """``text`` cut behind the letters of each of ``parts``; the last takes what is left."""
    found = []
    at = 0
    for words in parts[:-1]:
        letters = sum(not character.isspace() for word in words for character in word)
        end = at
        while end < len(text) and letters:
            letters -= not text[end].isspace()
            end += 1
        found.append(text[at:end].strip())
        at = end
    return [*found, text[at:].strip()]


def _name(speaker: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    letter = chr(ord("A") + speaker % 26)
    return letter if speaker < 26 else _name(speaker // 26 - 1) + letter

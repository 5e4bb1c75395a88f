"""Hotwords as clients write them, and as tokens of a model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from yibu.errors import VerificationError

_WEIGHTED = re.compile(r"^(?P<word>.+?)[ \t]+-?\d+(?:\.\d+)?$")
_WIDE = re.compile("^[\u4e00-\u9fa50-9]+$")
UNKNOWN = "<unk>"


def parsed(text: str) -> tuple[str, ...]:
    """The words of a list, in any of FunASR's ways to write one.

    JSON, ``{"阿里巴巴": 20}`` or ``["阿里巴巴"]``; lines, each a word that may have a weight after it
    (``阿里巴巴 20``); or one line of words between spaces or commas. The weights are for FunASR's
    search with a graph, and its networks have no use for them: they are read, and dropped.
    """
    text = text.strip()
    if text.startswith(("{", "[")):
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if isinstance(content, Mapping | list):
            return _distinct(str(word) for word in content)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    weighted = [_WEIGHTED.match(line) for line in lines]
    if len(lines) > 1 or any(weighted):
        return _distinct(
            found["word"] if found else line for line, found in zip(lines, weighted, strict=True)
        )
    return _distinct(re.split(r"[\s,，、;；]+", text))


def _distinct(words: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))  # type: ignore[attr-defined]


class HotwordTokens:
    """Splits hotwords into the tokens of a model, as FunASR's ``seg_tokenize`` does."""

    def __init__(self, vocabulary: Sequence[str], parts: Mapping[str, Sequence[str]]) -> None:
        """``parts`` are the tokens of each known word, by the model's ``seg_dict``."""
        self._numbers = {token: n for n, token in enumerate(vocabulary)}
        self._parts = parts
        self._unknown = self._numbers.get(UNKNOWN, len(vocabulary) - 1)

    @classmethod
    def read(cls, vocabulary: Sequence[str], directory: Path) -> HotwordTokens:
        path = directory / "seg_dict"
        if not path.exists():
            return cls(vocabulary, {token: (token,) for token in vocabulary})
        try:
            lines = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise VerificationError(
                "{path}: not a readable list of words: {error}",
                path=path,
                error=error,
                hint="Download it again",
            ) from error
        return cls(vocabulary, {line[0]: tuple(line[1:]) for line in lines})

    def of(self, word: str) -> tuple[int, ...]:
        """The numbers of ``word``'s tokens; a part that the model does not know is ``<unk>``."""
        tokens: list[str] = []
        for part in word.lower().split():
            if part in self._parts:
                tokens += self._parts[part]
            elif _WIDE.match(part):
                for character in part:
                    tokens += self._parts.get(character, (UNKNOWN,))
            else:
                tokens.append(UNKNOWN)
        return tuple(self._numbers.get(token, self._unknown) for token in tokens)

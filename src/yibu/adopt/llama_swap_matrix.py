"""llama-swap's matrix, the sets of models that may run together, as groups: where groups can say the same.

config.example.yaml there has the expressions: ``a & b`` together, ``a | b`` either, ``+name`` another set's.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from yibu.messages import tr

_WORD = re.compile(r"\s*([&|()]|\+?[\w.-]+)")
_MOST = 10_000
"""Combinations of one matrix."""

Sets = frozenset[frozenset[str]]


class MatrixError(Exception):
    """It cannot be read, or groups cannot say it: why, as the end of a sentence."""


def groups_of(matrix: Mapping[str, Any], models: Collection[str]) -> dict[str, Any]:
    """The group of each model, as an entry has it.

    Groups can say two things: models of one group run together, and groups do not; or one model of each
    group runs, and groups do together. In both some may run beside all others.

    Raises:
        MatrixError: it says something else.
    """
    allowed = _allowed(matrix, models)
    alone = set(models) - {model for each in allowed for model in each}
    allowed |= {frozenset({model}) for model in alone}
    beside = {
        model: {other for each in allowed if model in each for other in each} for model in models
    }
    always = [model for model in models if beside[model] == set(models)]
    others = [model for model in models if model not in always]
    together = _classes(others, lambda one, other: other in beside[one])
    apart = _classes(others, lambda one, other: one == other or other not in beside[one])
    traits: dict[str, Any] = {}
    if apart is not None:
        largest = [{*each, *always} for each in itertools.product(*apart)]
        classes = apart
    elif together is not None:
        largest = [{*each, *always} for each in together]
        traits, classes = {"swap": False, "exclusive": True}, together
    else:
        raise MatrixError(tr("lets some models run together that groups cannot tell apart"))
    if not all(any(each <= one for one in allowed) for each in largest):
        raise MatrixError(tr("lets models run in pairs that may not all run together"))
    found: dict[str, Any] = {
        model: {"name": "matrix", "swap": False, "persistent": True} for model in always
    }
    for number, members in enumerate(classes, 1):
        found |= {model: {"name": f"matrix-{number}", **traits} for model in members}
    return found


def _classes(models: list[str], same: Callable[[str, str], bool]) -> list[list[str]] | None:
    """The models by a relation; None where it is no equivalence."""
    classes: list[list[str]] = []
    for model in models:
        home = next((each for each in classes if same(each[0], model)), None)
        if home is None:
            classes.append([model])
        else:
            home.append(model)
    kind = {model: number for number, each in enumerate(classes) for model in each}
    pairs = itertools.permutations(models, 2)
    return classes if all(same(a, b) == (kind[a] == kind[b]) for a, b in pairs) else None


def _allowed(matrix: Mapping[str, Any], models: Collection[str]) -> Sets:
    sets, names = matrix.get("sets"), matrix.get("vars") or {}
    if not isinstance(sets, dict) or not sets:
        raise MatrixError(tr("has no sets"))
    reader = _Reader({str(name): str(text) for name, text in sets.items()}, names, models)
    return frozenset(each for name in reader.texts for each in reader.set_of(name))


class _Reader:
    """Reads expressions into the sets of models that they stand for."""

    def __init__(
        self, texts: Mapping[str, str], names: Mapping[str, str], models: Collection[str]
    ) -> None:
        self.texts, self._names, self._models = texts, names, models
        self._open: list[str] = []

    def set_of(self, name: str) -> Sets:
        if name not in self.texts or name in self._open:
            raise MatrixError(tr("has no set {name}, or one that contains itself", name=name))
        self._open.append(name)
        words, at, text = [], 0, self.texts[name].rstrip()
        while at < len(text):
            match = _WORD.match(text, at)
            if match is None:
                raise MatrixError(
                    tr("has {text} in the set {name}", text=text[at:].strip(), name=name)
                )
            words.append(match[1])
            at = match.end()
        words.append("")
        found = self._either(words)
        if words != [""]:
            raise MatrixError(tr("has {text} in the set {name}", text=words[0], name=name))
        self._open.pop()
        return found

    def _either(self, words: list[str]) -> Sets:
        found = self._both(words)
        while words[0] == "|":
            words.pop(0)
            found |= self._both(words)
        return found

    def _both(self, words: list[str]) -> Sets:
        found = self._one(words)
        while words[0] == "&":
            words.pop(0)
            found = frozenset(a | b for a, b in itertools.product(found, self._one(words)))
            if len(found) > _MOST:
                raise MatrixError(tr("has more than {most} combinations", most=_MOST))
        return found

    def _one(self, words: list[str]) -> Sets:
        word = words.pop(0)
        if word == "(":
            found = self._either(words)
            if words.pop(0) != ")":
                raise MatrixError(tr("has a bracket that is not closed"))
            return found
        if word.startswith("+"):
            return self.set_of(word[1:])
        model = self._names.get(word, word)
        if model not in self._models:
            raise MatrixError(tr("names {model!r}, which is no model of the file", model=model))
        return frozenset({frozenset({model})})

"""The part of an unfinished text that can be shown: where consecutive hypotheses agree.

The rule is local agreement (Liu et al. 2020; Macháček et al. 2023 for whisper). What was shown is
never taken back: where a later hypothesis contradicts it, nothing more is shown until the end.
"""

from __future__ import annotations

import re

_UNITS = re.compile(
    r"\s*(?:[\u2e80-\u2fff\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W_]+(?:['’-][^\W_]+)*|\S)"
)
"""A Chinese character or kana, a word, or a mark, each with the space before it."""
_MARK = re.compile(r"\s*[^\w\s]")


_SPAN, _LAST_SPAN = 0.19, 0.29
"""Seconds of speech over which hypotheses must agree, and on their last word, which may not be whole. With
0.1 they agreed on what was not said."""


class Agreement:
    """The shown text of one utterance."""

    def __init__(self) -> None:
        self.shown = ""
        self._before: list[tuple[float, list[str]]] = []
        """The last hypotheses: the end of their speech, and their units."""

    def hypothesis(self, text: str, end: float) -> str:
        """Take the text of the speech up to ``end`` seconds; return what can be shown beyond what is."""
        units = _units(text)
        common = self._agreed(units, end - _SPAN)
        if len(common) == len(_unmarked(units)):
            longer = self._agreed(units, end - _LAST_SPAN)
            common = common if longer == common else common[:-1]
        self._before.append((end, units))
        while len(self._before) > 1 and self._before[1][0] <= end - _LAST_SPAN:
            self._before.pop(0)
        agreed = "".join(common)
        if not agreed.startswith(self.shown):
            return ""
        new = agreed[len(self.shown) :]
        self.shown = agreed
        return new

    def _agreed(self, units: list[str], since: float) -> list[str]:
        """What ``units`` and all hypotheses from the last one up to ``since`` on begin with, but for a mark
        at its end."""
        for end, before in reversed(self._before):
            units = _common(before, units)
            if end <= since:
                return _unmarked(units)
        return []


def rest(shown: str, text: str) -> str:
    """What the final ``text`` adds to what is shown; of one that contradicts that, what stands behind as
    many words."""
    if text.startswith(shown):
        return text[len(shown) :]
    return "".join(_units(text)[len(_units(shown)) :])


def _units(text: str) -> list[str]:
    return _UNITS.findall(text)


def _unmarked(units: list[str]) -> list[str]:
    """The units without a full stop at the end, which is guessed at every pause."""
    while units and _MARK.fullmatch(units[-1]):
        units = units[:-1]
    return units


def _common(first: list[str], second: list[str]) -> list[str]:
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return second[:index]
    return second[: min(len(first), len(second))]

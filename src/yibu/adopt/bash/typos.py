"""Words that cannot be meant as they are."""

from __future__ import annotations

import re

from yibu.messages import tr

_PLACEHOLDER = re.compile(r"\.{3}|…|\[[A-Za-z][\w \-/]*\]|\{[A-Za-z][\w \-]*\}")
_DASHES = re.compile(r"^[‐-―−－]|[“”‘’]")


def word_fault(word: str) -> str:
    """Why a word cannot be meant as it stands, as the end of a sentence; ``""`` where it can."""
    if _DASHES.search(word):
        return tr("has a typographic dash or quotation mark, which no program understands")
    if _PLACEHOLDER.fullmatch(word.rpartition("=")[2]):
        return tr("is a placeholder: put the real value there")
    return ""

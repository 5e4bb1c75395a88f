"""Pasted text: a terminal session, or lines of another system."""

from __future__ import annotations

import re

from yibu.adopt.bash import Gap, UnknownScriptError
from yibu.messages import tr

_PROMPT = re.compile(r"^\s*(?:\([\w.-]+\)\s*)?(?:[\w.-]+@[\w.-]+:?\s*[^\s$#]*)?\s*[$] (?=\S)")
"""``$ ``, ``(venv) $ ``, ``me@host:~/models$ ``."""
_BROKEN = re.compile(r"^.*(?<!\\)\\[ \t]+$(?=\n\s*-)", re.MULTILINE)
"""A line that was to be continued by flags, with a space behind its backslash."""


def tidy(text: str) -> str:
    """The commands alone where a session was pasted, prompts and output taken away; line numbers
    stay. Anything else comes back as it was, with the line ends of this system.

    Raises:
        UnknownScriptError: bash would take what is meant as one command for two.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if (broken := _BROKEN.search(text)) is not None:
        raise UnknownScriptError(
            Gap(text.count("\n", 0, broken.start()) + 1, broken[0]),
            tr("has a space behind its backslash, so that bash ends the command there"),
            tr("Take the space away, and adopt the script again."),
        )
    text = _unfinished(text)
    lines = text.split("\n")
    if not any(_PROMPT.match(line) for line in lines) or text.startswith("#!"):
        return text
    kept, continued = [], False
    for line in lines:
        prompt = _PROMPT.match(line)
        typed = line[prompt.end() :] if prompt else re.sub(r"^> ", "", line)
        kept.append(typed if prompt or continued else "")
        continued = (prompt is not None or continued) and line.endswith("\\")
    return "\n".join(kept)


def _unfinished(text: str) -> str:
    """Without a last backslash that continues nothing; bash takes no notice of it."""
    rest = text.rstrip("\n")
    backslashes = len(rest) - len(rest.rstrip("\\"))
    return text if backslashes % 2 == 0 else rest[:-1]

"""Text as people paste it: a terminal's session, lines of another system."""

from __future__ import annotations

import re

_PROMPT = re.compile(r"^\s*(?:\([\w.-]+\)\s*)?(?:[\w.-]+@[\w.-]+:?\s*[^\s$#]*)?\s*[$] (?=\S)")
"""``$ ``, ``(venv) $ ``, ``me@host:~/models$ ``."""


def tidy(text: str) -> str:
    """The commands alone where a session was pasted, prompts and output taken away; line numbers
    stay. Anything else comes back as it was, with the line ends of this system."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
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

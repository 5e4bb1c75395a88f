"""Shell patterns: matching, and removing matches."""

from __future__ import annotations

import re

_CLASSES = {"[:digit:]": "0-9", "[:alpha:]": "a-zA-Z", "[:alnum:]": "a-zA-Z0-9",
            "[:space:]": r"\s", "[:upper:]": "A-Z", "[:lower:]": "a-z"}  # fmt: skip


def to_regex(pattern: str) -> str:
    """A pattern as a regular expression; a backslash quotes the character behind it."""
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            out.append(re.escape(pattern[at + 1]))
            at += 2
            continue
        if char == "*":
            out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end]
            if "[:" in inside and (further := pattern.find("]", end + 1)) > 0:
                end, inside = further, pattern[at + 1 : further]
            for name, characters in _CLASSES.items():
                inside = inside.replace(name, characters)
            negated = inside[:1] in ("!", "^")
            out.append(f"[{'^' if negated else ''}{inside[negated:]}]")
            at = end
        else:
            out.append(re.escape(char))
        at += 1
    return "".join(out)


def matches(text: str, pattern: str) -> bool:
    return re.fullmatch(to_regex(pattern), text, re.DOTALL) is not None


def escape(text: str) -> str:
    """A text as a pattern that matches it alone."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def without(text: str, pattern: str, operator: str) -> str:
    """``${X#…}``, ``${X##…}``, ``${X%…}``, ``${X%%…}``."""
    longest = len(operator) == 2
    sizes = range(len(text), -1, -1) if longest else range(len(text) + 1)
    for size in sizes:
        if operator[0] == "#" and matches(text[:size], pattern):
            return text[size:]
        if operator[0] == "%" and matches(text[len(text) - size :], pattern):
            return text[: len(text) - size]
    return text


def replaced(text: str, pattern: str, new: str, operator: str) -> str:
    """``${X/…/…}``: ``/`` the first match, ``//`` every one, ``/#`` and ``/%`` at an end."""
    expression = to_regex(pattern)
    if operator == "/#":
        expression = f"^(?:{expression})"
    elif operator == "/%":
        expression = f"(?:{expression})$"
    if not pattern:
        return text
    return re.sub(expression, lambda _: new, text, count=0 if operator == "//" else 1,
                  flags=re.DOTALL)  # fmt: skip

"""What a model's chat template supports, by its text; it is never run here."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

_CODE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_TOOLS = re.compile(r"(?<![\w.])tools\b")
_THOUGHTS = re.compile(
    r"</?(\w+:)?think|</?thought|\[THINK\]|<\|(START_)?thinking|enable_thinking|detailed thinking"
    r"|reasoning_(content|effort)",
    re.IGNORECASE,
)
"""What templates write around thoughts, leave out of earlier turns, or switch them by."""
_THINKING = re.compile(r"(?<![\w.])thinking\b")


def takes_tools(template: str) -> bool:
    """Whether the template puts a request's ``tools`` into the prompt.

    A field of a message that is called so (``message['tools']``) is another thing: no OpenAI
    request has it.
    """
    return _names(_TOOLS, template)


def thinks(template: str) -> bool:
    """Whether the template is of a model that thinks before it answers."""
    return _THOUGHTS.search(template) is not None or _names(_THINKING, template)


def _names(variable: re.Pattern[str], template: str) -> bool:
    """Whether the template's code, without its texts, names the variable."""
    return any(variable.search(_STRING.sub("''", code)) for code in _CODE.findall(template))


def templates_of(
    files: Collection[str], text: Callable[[str], str], json: Callable[[str], Any]
) -> list[str]:
    """The texts of a model's templates, in the order in which transformers looks.

    Args:
        text: Reads one of the files.
        json: The same, parsed.
    """
    if "chat_template.jinja" in files:
        return [text("chat_template.jinja")]
    for name in ("chat_template.json", "tokenizer_config.json"):
        if name in files and (found := texts(json(name).get("chat_template"))):
            return found
    return []


def texts(value: Any) -> list[str]:
    """The templates in a tokenizer_config.json's ``chat_template``: one, or several with names
    (``tool_use`` is taken for requests with tools)."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, Mapping):
        return [text for text in value.values() if isinstance(text, str)]
    if isinstance(value, list):
        entries = (entry.get("template") for entry in value if isinstance(entry, Mapping))
        return [text for text in entries if isinstance(text, str)]
    return []

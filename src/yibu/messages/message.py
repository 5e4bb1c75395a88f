"""A text with its template and values, and the catalogues that translate it."""

from __future__ import annotations

import gettext
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from yibu.messages.language import ENGLISH

SYSTEM = frozenset(Path(__file__).with_name("system.txt").read_text("utf-8").splitlines())
"""Errors of the system, and of the readers of JSON, as they say them: msgids of the catalogue."""


DOMAIN: Final = "yibu"
LOCALE = Path(__file__).parent / "locale"
_MARKS = {", ": "、", "; ": "；", " ": "", " or ": " 或 ", " and ": "和"}
"""Between texts one after another (:func:`joined`), in Chinese."""
_PLAIN = (str, int, float, bool, type(None))


class _Shown(str):
    """A value of another type, as it is shown: ``!r`` of it adds no quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Message(str):
    """A text in the language of this process, with what it was made of.

    ``template`` is the English text with ``{name}`` where a value stands, and the catalogue's id;
    ``values`` are strings, numbers and other messages.
    """

    __slots__ = ("template", "values")

    template: str
    values: Mapping[str, Any]

    def __new__(
        cls, text: str, template: str = "", values: Mapping[str, Any] | None = None
    ) -> Self:
        message = super().__new__(cls, text)
        message.template, message.values = template or text, values or {}
        return message

    def mapped(self, change: Callable[[str], str]) -> str:
        """The same message with the strings among its values changed."""
        values = {
            name: value.mapped(change)
            if isinstance(value, Message)
            else change(value)
            if isinstance(value, str)
            else value
            for name, value in self.values.items()
        }
        return tr(self.template, **values)


class _Catalogues:
    """The catalogues read so far, and this process's language."""

    def __init__(self) -> None:
        self.language = ENGLISH
        self._read: dict[str, gettext.NullTranslations] = {}

    def template(self, template: str, language: str) -> str:
        if language == ENGLISH or not template:
            return template
        if template.startswith("{part0}"):
            between = template[7:].partition("{")[0]
            return template.replace(between, _MARKS.get(between, between)) if between else template
        if language not in self._read:
            self._read[language] = gettext.translation(
                DOMAIN, LOCALE, languages=[language], fallback=True
            )
        return self._read[language].gettext(template)


_CATALOGUES = _Catalogues()


def use(language: str) -> None:
    """Speak this language from now on. A program's entry calls it before it imports what speaks;
    the node never does, so that its logs are English."""
    _CATALOGUES.language = language


def active() -> str:
    """This process's language."""
    return _CATALOGUES.language


def tr(template: str, /, **values: object) -> str:
    """The text of an English template in the language of this process.

    Values stand in it by name, with ``str.format``'s conversions and formats. Without values nothing
    is filled in, and braces stand for themselves. What is returned is a :class:`Message`.
    """
    kept = {
        name: _kept(value, values, quoted=f"{{{name}!r" in template)
        for name, value in values.items()
    }
    return Message(_filled(_CATALOGUES.template(template, active()), kept), template, kept)


def _kept(value: Any, values: Mapping[str, object], *, quoted: bool) -> Any:
    """A value that can be carried to another process; the system's words with their translation.

    An error of the system is its reason without its number, and the file that it names, where no
    other value does.
    """
    if isinstance(value, OSError) and value.strerror and not quoted:
        file = None if value.filename is None else os.fsdecode(value.filename)
        known = file is None or any(file in str(one) for one in values.values() if one is not value)
        reason = _kept(value.strerror, {}, quoted=False)
        return reason if known else tr("{file}: {reason}", file=file, reason=reason)
    if isinstance(value, json.JSONDecodeError) and not quoted:
        reason = _kept(value.msg, {}, quoted=False)
        line, column = value.lineno, value.colno
        return tr("line {line}, column {column}: {reason}", line=line, column=column, reason=reason)
    if not isinstance(value, _PLAIN):
        return _Shown(repr(value) if quoted else value)
    return tr(value) if type(value) is str and value in SYSTEM else value


def filled(text: str, /, **values: object) -> str:
    """A text completed with values known only now."""
    if isinstance(text, Message):
        return tr(text.template, **{**text.values, **values})
    return tr(text, **values)


def brief(text: str) -> str:
    """The text without what stands around and below it: its value ``brief``, else its first line."""
    inner = text.values.get("brief") if isinstance(text, Message) else None
    if isinstance(inner, str):
        return inner
    return text.partition("\n")[0] if "\n" in text else text


def render(text: str, language: str) -> str:
    """A text in the language of its reader; what is no message stays as it is."""
    if not isinstance(text, Message):
        return text
    values = {
        name: render(value, language) if isinstance(value, str) else value
        for name, value in text.values.items()
    }
    return _filled(_CATALOGUES.template(text.template, language), values)


_HAN = "\u4e00-\u9fff"
_FIELD = re.compile(
    rf"\{{\{{|\}}\}}|(?P<before>(?<=[{_HAN}]) )?"
    r"\{(?P<name>\w+)(?P<form>(?:![rsa])?(?::[^{}]*)?)\}"
    rf"(?P<after> (?=[{_HAN}]))?"
)
"""A field; in Chinese with the spaces around it, which stand between Chinese and other words alone."""
_EMPTY = re.compile(r"\s*[(（](?:[^()（）]*[:：]\s*)?[)）]|\s*[:：]?\s*(?=[.。]$)| (?= )")
"""What an empty value leaves behind: brackets, a colon before the end, a second space."""


def _filled(template: str, values: Mapping[str, Any]) -> str:
    """The template with its values; a field that has none stays, as braces of a text do."""
    if not values:
        return template

    def field(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None:
            return found[0][0]
        if name not in values:
            return found[0]
        text = f"{{0{found['form']}}}".format(values[name])
        before = "" if _is_han(text[:1]) else found["before"] or ""
        after = "" if _is_han(text[-1:]) else found["after"] or ""
        return f"{before}{text}{after}"

    text = _FIELD.sub(field, template)
    return _EMPTY.sub("", text) if "" in values.values() else text


def _is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def english(value: Any) -> Any:
    """Data for programs: the same with each message in English."""
    return localized(value, ENGLISH)


def localized(value: Any, language: str) -> Any:
    """JSON's own types, with each message in the language of its reader."""
    if isinstance(value, str):
        return render(value, language)
    if isinstance(value, Mapping):
        return {localized(key, language): localized(item, language) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [localized(item, language) for item in value]
    return value


def pack(value: Any) -> Any:
    """JSON's own types, with each message as its template and values."""
    if isinstance(value, Message):
        return {"$message": value.template, "values": pack(value.values)}
    if isinstance(value, _Shown):
        return {"$shown": str(value)}
    if isinstance(value, Mapping):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [pack(item) for item in value]
    return value


def unpack(value: Any) -> Any:
    """What :func:`pack` made, with each message in this process's language."""
    if isinstance(value, dict):
        plain = {key: unpack(item) for key, item in value.items()}
        if plain.keys() == {"$message", "values"}:
            return tr(plain["$message"], **plain["values"])
        if plain.keys() == {"$shown"}:
            return _Shown(plain["$shown"])
        return plain
    if isinstance(value, list):
        return [unpack(item) for item in value]
    return value


def joined(separator: str, parts: Iterable[str]) -> str:
    """Whole texts one after another; each, and the mark between, is in the language of the reader."""
    values = {f"part{number}": part for number, part in enumerate(parts)}
    return tr(separator.join(f"{{{name}}}" for name in values), **values)

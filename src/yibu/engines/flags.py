"""The one reader of an engine's flags.

Each engine's folder has a ``FlagTable``. Its launch plan, the planner's request, the command line and
``yibu adopt`` all read flags and options through it, so that a short name or an alias means the same
everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Self

from yibu.config import ModelConfig
from yibu.errors import ConfigError
from yibu.messages import tr

_NONE: Mapping[str, Any] = {}
_WORDS: Mapping[str, int] = {"value": 1, "int": 1, "text": 1, "pair": 2}
"""The number of words after a flag, by its kind; a switch has none, other kinds any number."""


_EXPECTED: Mapping[str, str] = {
    "int": tr("a whole number"),
    "float": tr("a number"),
    "size": tr("a whole number, with k, m or g for thousands and K, M or G for 1,024"),
    "json": "JSON",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of a command line with its values."""

    name: str
    """The table's name for it; for an unknown flag its own, without dashes, with underscores."""
    values: tuple[str, ...]
    words: tuple[str, ...]
    """The words as given."""
    off: bool = False
    """Whether it is a switch's negation."""
    key: str = ""
    """The key after a dot, by which a part of the flag's JSON value is set."""


@dataclass(frozen=True, slots=True)
class FlagTable:
    """The flags of one version of an engine's server."""

    version: str
    flags: Mapping[str, str]
    """Name with underscores → ``switch``, ``value``, ``values`` (several after one flag), ``repeat``
    (again for each value); of llama-server ``int``, ``text``, ``pair`` and ``removed`` too."""
    short: Mapping[str, str] = field(default_factory=dict)
    """Names by other spellings."""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Allowed values by name; flags with arbitrary values are left out."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Name → ``int``, ``float``, ``size`` (a whole number that may have a unit) or ``json``, where its
    parser takes nothing else."""
    negations: Mapping[str, str] = field(default_factory=dict)
    """Spellings that turn a switch off → its name. With none, every switch has ``no_NAME``."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that are read like flags → name."""
    strict: bool = False
    """The server takes the words after a flag as its values whatever they look like, as llama-server
    does; argparse takes those that do not begin with a dash."""
    loose: frozenset[str] = frozenset()
    """Flags of a strict table that older versions took without a value."""
    abbreviates: bool = False
    """Whether the server's parser accepts an unambiguous beginning of a name."""

    @property
    def _unknown(self) -> str:
        """The kind of a flag that is not in the table."""
        return "" if self.flags else "repeat"

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that ``yibu.launchers.flags`` printed.

        Raises:
            TypeError: it lacks a part.
        """
        return cls(**plain, abbreviates=True)

    def can_be_off(self, name: str) -> bool:
        """Whether a switch can be turned off explicitly; else it is off when left out."""
        every = not (self.negations or self.abbreviates)
        return every or name in self.negations.values()

    def name(self, spelling: str) -> tuple[str, bool]:
        """The flag of a spelling, and whether the spelling turns it off."""
        name = spelling.lstrip("-").replace("-", "_")
        if name in self.flags:
            return name, False
        if name in self.short:
            return self.short[name], False
        if name in self.negations:
            return self.negations[name], True
        positive = name.removeprefix("no_")
        if not self.negations and positive != name:
            positive = self.short.get(positive, positive)
            if self.flags.get(positive) == "switch":
                return positive, True
        if self.abbreviates:
            spellings = (*self.flags, *self.short)
            begun = {self.short.get(one, one) for one in spellings if one.startswith(name)}
            if len(begun) == 1:
                return begun.pop(), False
        return name, False

    def read(self, words: Sequence[str]) -> list[Flag]:
        """The flags in order: ``--name value``, ``--name=value`` and ``-n value``.

        Raises:
            ConfigError: a word stands before any flag.
        """
        return list(self._read(list(words)))

    def _read(self, words: list[str]) -> Iterator[Flag]:
        while words:
            word = words.pop(0)
            if not is_flag(word):
                raise ConfigError(
                    "the engine's flags begin with {word!r}, which is not a flag",
                    word=word,
                    hint="Flags look like --name VALUE",
                )
            spelling, equals, value = word.partition("=")
            spelling, dot, key = spelling.partition(".") if "." in spelling else (spelling, "", "")
            if dot and self.name(f"{spelling}.{key}")[0] in self.flags:
                spelling, key = f"{spelling}.{key}", ""
            name, off = self.name(spelling)
            given = [value] if equals else []
            count = self._count(name, off=off)
            while words and (count is None or len(given) < count):
                if self._ends(name, words[0], counted=count is not None):
                    break
                given.append(words.pop(0))
            # What is too much is kept, for whoever checks the flag to name it.
            while words and not is_flag(words[0]):
                given.append(words.pop(0))
            yield Flag(name, tuple(given), (word, *given[bool(equals) :]), off, key)

    def wrong_value(self, name: str, value: str) -> str:
        """What a value should be, where its flag does not take it; else ``""``."""
        kind = self.types.get(name, "")
        if kind == "size" and value.lower() in ("auto", "-1"):
            return ""
        try:
            if kind == "int":
                int(value)
            elif kind == "float":
                float(value)
            elif kind == "size":
                whole(value)
            elif kind == "json":
                json.loads(value)
        except ValueError:
            return _EXPECTED[kind]
        return ""

    def _count(self, name: str, *, off: bool) -> int | None:
        kind = self.flags.get(name, "")
        if off or kind in ("switch", "removed"):
            return 0
        return _WORDS.get(kind)

    def _ends(self, name: str, word: str, *, counted: bool) -> bool:
        """Whether a word is the next flag and not a value of this one."""
        if self.strict and counted and name not in self.loose:
            return False
        return is_flag(word)

    def of_options(self, options: Mapping[str, Any]) -> list[Flag]:
        """Options that name the engine's flags, as flags.

        ``true`` and ``false`` turn a switch on and off; null leaves the engine's default; a list is
        several values; a mapping is JSON.
        """
        found: list[Flag] = []
        for option, value in options.items():
            if value is None:
                continue
            first, dot, key = option.partition(".")
            if dot and self.name(option)[0] in self.flags:
                first, dot, key = option, "", ""
            name, off = self.name(first)
            flag = spelt(name) + dot + key
            if isinstance(value, bool) and self.flags.get(name, "switch") == "switch":
                off ^= not value
                negated = self._negated(name) if off else flag
                found.append(Flag(name, (), (negated,), off, key))
                continue
            several = isinstance(value, list) and self.types.get(name) != "json"
            values = tuple(map(text_of, value)) if several else (text_of(value),)
            if several and self.flags.get(name, self._unknown) == "repeat":
                found += [Flag(name, (one,), (flag, one), False, key) for one in values]
            else:
                found.append(Flag(name, values, (flag, *values), False, key))
        return found

    def of_variable(self, spelling: str, value: str) -> Flag:
        """The flag of an environment variable; a switch's value tells whether it is on."""
        name, off = self.name(spelling)
        if off:
            return Flag(name, (), (self._negated(name),), off=True)
        if self.flags.get(name) == "switch":
            off = value.lower() in ("0", "false", "off", "disabled", "no")
            return Flag(name, (), (self._negated(name) if off else spelt(name),), off)
        return Flag(name, (value,), (spelt(name), value))

    def _negated(self, name: str) -> str:
        spellings = [word for word, positive in self.negations.items() if positive == name]
        return spelt(max(spellings, key=len)) if spellings else f"--no-{spelt(name)[2:]}"


def pinned_flags(package: str, name: str = "flags.json") -> dict[str, Any]:
    """The pinned version's flags, written by a script into the engine's folder."""
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


NO_FLAGS = FlagTable("", {})
"""The table of an unknown program: any word after a flag is its value, and each of several values has
its own flag."""


@dataclass(frozen=True, slots=True)
class Given:
    """What an entry's flags, options and variables say, by the table's names: flags win over
    options, options over variables, the last flag over the first."""

    model: str
    values: Mapping[str, Any]
    """A switch is True or False, what has one value is that as it was written, and what has several
    is a tuple."""

    @classmethod
    def of(cls, model: ModelConfig, table: FlagTable, aliases: Mapping[str, str] = _NONE) -> Given:
        """Read an entry.

        Args:
            aliases: yibu's own names of options → the engine's flags that they stand for. A name
                that stands for no flag of the engine's is its own.
        """
        found: dict[str, Any] = {}
        for variable, name in table.variables.items():
            if variable in model.env:
                found[name] = model.env[variable]
        for option, value in model.options.items():
            if value is None:
                continue
            name = option.lstrip("-").replace("-", "_")
            main, off = (aliases[name], False) if name in aliases else table.name(name)
            found[main] = not value if off and isinstance(value, bool) else value
        for flag in table.read(model.flags):
            name = aliases.get(flag.name, flag.name)
            found[f"{name}.{flag.key}" if flag.key else name] = (
                not flag.off
                if not flag.values
                else flag.values[0]
                if len(flag.values) == 1
                else flag.values
            )
        return cls(model.name, found)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def any_of(self, names: Iterable[str]) -> bool:
        return any(name in self.values for name in names)

    def number(self, name: str, *, open_words: Sequence[str] = ("auto", "-1")) -> int | None:
        """A whole number, ``8k`` and ``8K`` as vLLM reads them; None where it is not given.

        Raises:
            ConfigError: it is none.
        """
        value = self.values.get(name)
        if value is None or str(value).lower() in open_words:
            return None
        try:
            return whole(value)
        except (TypeError, ValueError) as error:
            raise self.refuse(name, tr("a whole number")) from error

    def fraction(self, name: str) -> float | None:
        """A number above 0 and up to 1. Raises ConfigError."""
        value = self.values.get(name)
        if value is None:
            return None
        try:
            share = float(value)
        except (TypeError, ValueError) as error:
            raise self.refuse(name, tr("a number above 0 and up to 1")) from error
        if not 0 < share <= 1:
            raise self.refuse(name, tr("a number above 0 and up to 1"))
        return share

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        return None if value in (None, "auto", True) else str(value)

    def words(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name)
        if isinstance(value, list | tuple):
            return tuple(map(str, value))
        return (str(value),) if isinstance(value, str) else ()

    def switch(self, name: str) -> bool:
        value = self.values.get(name)
        return value is True or str(value).lower() == "true"

    def refuse(self, name: str, expected: str) -> ConfigError:
        return ConfigError(
            "model {model!r}: option {name} is {values!r}; {expected} was expected",
            model=self.model,
            name=name,
            values=self.values[name],
            expected=expected,
            hint="Correct it in yibu.yaml under `options:`, or after `--`",
        )


_SCALES = {letter: 1000 ** (n + 1) for n, letter in enumerate("kmgt")} | {
    letter: 1024 ** (n + 1) for n, letter in enumerate("KMGT")
}
"""Units as vLLM reads them: k, m, g and t are decimal, K, M, G and T binary."""


def whole(value: Any) -> int:
    """``4096``, ``8k`` (8,000), ``25.6k`` (25,600) or ``8K`` (8,192) as a number.

    Raises:
        ValueError: it is none, or is negative; a binary unit takes no fraction.
    """
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    text = str(value).strip()
    scale = _SCALES.get(text[-1:], 1)
    if scale == 1:
        number = float(text)
    elif text[-1].isupper():
        number = int(text[:-1]) * scale
    else:
        number = int(float(text[:-1]) * scale)
    if number < 0 or number != int(number):
        raise ValueError(value)
    return int(number)


def lacks_value(who: str, word: str) -> ConfigError:
    """The error for a flag without its value."""
    return ConfigError("{who} lacks its value", who=who, word=word, hint="Write {word} VALUE")


def is_flag(word: str) -> bool:
    """Whether a word is a flag; a negative number is a value."""
    return word.startswith("-") and not word.lstrip("-")[:1].isdigit() and word.strip("-") != ""


def spelt(name: str) -> str:
    return "--" + name.replace("_", "-")


def text_of(value: Any) -> str:
    """An option's value as the word of a command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""Reads a YAML document into plain values, bounded in size, depth and aliases.

YAML 1.1, but ``22:22``, ``010`` and dates stay text. Errors name the line and the column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, AnyStr

import yaml

from yibu.config.syntax import full_width, problem_text, without_space
from yibu.errors import ConfigError
from yibu.messages import tr

MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 64
_MAX_VALUES = 20_000
_MAX_DIGITS = 40
"""Digits of a number: more than any setting has, and few enough to read at once."""
_REFERENCE = re.compile(r"\$\{env\.([^}]*)\}")
_OTHER_REFERENCE = re.compile(
    r"(?<!\$)\$\{(?!env\.[^}]*\})\s*(?:[Ee][Nn][Vv]\.)?(\w*)[^}]*\}|^\$([A-Z_][A-Z0-9_]*)$"
)
"""A variable as shells, Compose files and other programs refer to one."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_TAGS = frozenset(
    _TAG + name for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge")
)
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Location = tuple[str | int, ...]
"""The path of a value: ``("models", 0, "name")``."""


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader without numbers in base 60, octal numbers and dates."""

    yaml_implicit_resolvers: Mapping[str, list[tuple[str, re.Pattern[str]]]] = {}


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    whole = re.compile(r"^(?:[-+]?0b[01_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$")
    fraction = re.compile(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    )
    replaced = {f"{_TAG}int": whole, f"{_TAG}float": fraction}
    return {
        first: [
            (tag, replaced.get(tag, pattern))
            for tag, pattern in resolvers
            if tag != f"{_TAG}timestamp"
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.yaml_implicit_resolvers = _resolvers()


def decode(data: bytes, name: str) -> str:
    """A file's bytes as text: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        ConfigError: it is too large, or in another encoding, which is named where it can be told.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(
            "{name} has {data_count} bytes; a configuration has at most 1 MiB.",
            name=name,
            data_count=len(data),
        )
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(data, error, name) from error


def _wrong_encoding(data: bytes, error: UnicodeDecodeError, name: str) -> ConfigError:
    line, column = _position(data, error.start, b"\n")
    where = tr("line {line}, column {column}", line=line, column=column)
    if error.encoding.startswith("utf-16"):
        return ConfigError(
            "{name} begins like UTF-16 text and is none: {reason}.",
            name=name,
            reason=error.reason,
            hint="Save it as UTF-8",
        )
    try:
        sample = data.split(b"\n")[line - 1].decode("gb18030").strip()
    except UnicodeDecodeError:
        return ConfigError(
            "{name} is not UTF-8 text: {where} has the byte 0x{data:02x}.",
            name=name,
            where=where,
            data=data[error.start],
            hint="Save it as UTF-8",
        )
    return ConfigError(
        "{name} is not UTF-8 but probably GBK: as GBK, line {line} reads: {sample}",
        name=name,
        line=line,
        sample=sample,
        hint="Convert it: iconv -f GB18030 -t UTF-8 {name} > new.yaml",
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and its line and column, from 1; None for the whole file."""

    line: int | None
    column: int | None
    text: str

    def __str__(self) -> str:
        if self.line is None:
            return self.text
        place = {"line": self.line, "column": self.column, "reason": self.text}
        return tr("line {line}, column {column}: {reason}", **place)


class FaultyFileError(ConfigError):
    """A configuration file cannot be used; ``faults`` says what of it."""

    def __init__(self, message: str, faults: Sequence[Fault], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Document:
    """The values of one file, and their positions in it."""

    value: Any
    faults: Mapping[Location, str]
    """References to environment variables that cannot be replaced, by the place they stand at."""
    unset: Sequence[str]
    """Referenced variables that are not set."""
    _root: yaml.Node | None = field(repr=False)

    def place(self, location: Sequence[str | int]) -> tuple[int, int]:
        """Line and column, from 1, of the value at ``location``, or of the nearest around it."""
        node = self._root
        mark = node.start_mark if node is not None else None
        for part in location:
            node = _child(node, part) if node is not None else None
            mark = node.start_mark if node is not None else mark
        return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def read(
    text: str,
    name: str,
    env: Mapping[str, str],
    is_text: Callable[[Location], bool] = lambda _location: False,
    is_free: Callable[[Location], bool] = lambda _location: False,
) -> Document:
    """The document in ``text``, with ``${env.NAME}`` replaced in every value.

    A value that is nothing but one reference is read as if the variable's value were written there
    (a number becomes a number); where ``is_text`` says that a text stands, every value is text as
    it was written. References in another form are faults, unless ``is_free`` says that any text may
    stand there.

    Raises:
        ConfigError: it is no YAML, or beyond the bounds.
    """
    if found := _UNPRINTABLE.search(text):
        line, column = _position(text, found.start(), "\n")
        character = f"U+{ord(found[0]):04X}"
        text = tr("the character {character} is none of a text", character=character)
        raise FaultyFileError(
            tr(
                "{name} is not a text file: line {line}, column {column} has the character "
                "{character}.",
                name=name,
                line=line,
                column=column,
                character=character,
            ),
            [Fault(line, column, text)],
        )
    try:
        _check_bounds(text)
        loader = _Loader(text)
        root = loader.get_single_node()
        reader = _Reader(loader, env, is_text, is_free)
        value = None if root is None else reader.value(root, ())
    except yaml.YAMLError as error:
        fault = _yaml_fault(error, text)
        raise FaultyFileError(
            tr("{name} is not valid YAML: {fault}.", name=name, fault=fault), [fault]
        ) from error
    return Document(value, reader.faults, tuple(dict.fromkeys(reader.unset)), root)


def _check_bounds(text: str) -> None:
    """Raise for a document that is too deep or too large, before anything recurses into it."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        values += isinstance(event, yaml.NodeEvent)
        if depth > _MAX_DEPTH:
            raise _fault(event, tr("nested more than {limit} levels deep", limit=_MAX_DEPTH))
        if values > _MAX_VALUES:
            raise _fault(event, tr("more than {limit} values", limit=_MAX_VALUES))


class _Reader:
    """Turns nodes into values; a node that an alias repeats is read again at each place."""

    def __init__(
        self,
        loader: Any,
        env: Mapping[str, str],
        is_text: Callable[[Location], bool],
        is_free: Callable[[Location], bool],
    ) -> None:
        self._loader = loader
        self._env = env
        self._is_text = is_text
        self._is_free = is_free
        self._values = 0
        self._around: list[yaml.Node] = []
        self.faults: dict[Location, str] = {}
        self.unset: list[str] = []

    def value(self, node: yaml.Node, at: Location) -> Any:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise _fault(
                node,
                tr("its aliases expand to more than {limit} values", limit=_MAX_VALUES),
            )
        if any(node is outer for outer in self._around):
            raise _fault(node, tr("an alias refers to the value that it stands in"))
        if len(self._around) >= _MAX_DEPTH:
            raise _fault(
                node, tr("its aliases nest more than {limit} levels deep", limit=_MAX_DEPTH)
            )
        if node.tag not in _TAGS:
            raise _fault(
                node, tr("the tag {tag} is not used here", tag=node.tag.replace(_TAG, "!!"))
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        self._around.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*at, i)) for i, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, at)
        finally:
            self._around.pop()

    def _mapping(self, node: yaml.MappingNode, at: Location) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = {**self._merged(value_node, at), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise _fault(
                    key_node, tr("a key has to be a word, and this is a list or a mapping")
                )
            key = key_node.value
            if key in own:
                raise _fault(key_node, tr("the key {key!r} stands twice", key=key))
            own[key] = self.value(value_node, (*at, key))
        return {**merged, **own}

    def _merged(self, node: yaml.Node, at: Location) -> dict[Any, Any]:
        """What ``<<:`` adds: a mapping, or several of which the first wins."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[Any, Any] = {}
        for one in nodes:
            if not isinstance(one, yaml.MappingNode):
                raise _fault(one, tr("<<: takes a mapping, or a list of mappings"))
            merged = {**self.value(one, at), **merged}
        return merged

    def _scalar(self, node: yaml.ScalarNode, at: Location) -> Any:
        other = _OTHER_REFERENCE.search(node.value)
        if other is not None and not self._is_free(at):
            self.faults[at] = _written_so(other[0], other[1] or other[2])
        text = _REFERENCE.sub(lambda match: self._variable(match[1], at), node.value)
        if bad := next((c for c in text if c == "\0" or "\ud800" <= c <= "\udfff"), None):
            raise _fault(node, tr("a value has the character U+{bad:04X}", bad=ord(bad)))
        tag = node.tag
        if self._is_text(at) and tag != f"{_TAG}null":
            return text
        if _REFERENCE.fullmatch(node.value) and at not in self.faults:
            tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))
        if tag in (f"{_TAG}int", f"{_TAG}float") and len(text) > _MAX_DIGITS:
            raise _fault(
                node,
                tr(
                    "a number of {text_count} characters; at most {limit}",
                    text_count=len(text),
                    limit=_MAX_DIGITS,
                ),
            )
        made = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        return self._loader.construct_object(made)

    def _variable(self, variable: str, at: Location) -> str:
        if not _VARIABLE.fullmatch(variable):
            name = re.match(r"\s*(\w*)", variable)
            self.faults[at] = _written_so(f"${{env.{variable}}}", name[1] if name else "")
        elif variable not in self._env:
            self.faults[at] = tr(
                "the environment variable {variable} is not set", variable=variable
            )
            self.unset.append(variable)
        return self._env.get(variable, "")


def _written_so(found: str, name: str | None) -> str:
    return tr(
        "{found} is not replaced; write {wanted}, which has no default",
        found=found,
        wanted=f"${{env.{name or 'NAME'}}}",
    )


def _fault(at: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _yaml_fault(error: yaml.YAMLError, text: str) -> Fault:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None:
        return Fault(None, None, problem_text(problem or error))
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if line[mark.column : mark.column + 1] == "\t" or line[: mark.column].endswith("\t"):
        problem = tr("a tab stands where YAML wants spaces")
    if (typed := full_width(line)) is not None:
        return Fault(mark.line + 1, *typed)
    # A key without its ": " is a text, which goes on in the next line: there the fault is found.
    before = lines[mark.line - 1] if mark.line else ""
    if (typed := full_width(before) or without_space(before)) is not None:
        return Fault(mark.line, *typed)
    return Fault(mark.line + 1, mark.column + 1, problem_text(problem))


def _position(text: AnyStr, offset: int, newline: AnyStr) -> tuple[int, int]:
    """Line and column, from 1."""
    return text.count(newline, 0, offset) + 1, offset - text.rfind(newline, 0, offset)


def _child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode):
        return node.value[part] if isinstance(part, int) and part < len(node.value) else None
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in _entries(node) if key == str(part)), None)


def _entries(node: yaml.MappingNode, depth: int = 0) -> Iterator[tuple[str, yaml.Node]]:
    """Keys with their values, a mapping's own before those that it merges."""
    yield from ((key.value, value) for key, value in node.value if key.tag != _MERGE)
    for key, value in node.value:
        if key.tag == _MERGE and depth < _MAX_DEPTH:
            for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(one, yaml.MappingNode):
                    yield from _entries(one, depth + 1)

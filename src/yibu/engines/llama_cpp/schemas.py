"""What llama.cpp's grammar can express of a JSON Schema.

llama.cpp turns a schema into a grammar (``common/json-schema-to-grammar.cpp``) and drops, without a word,
what it has no rule for. Each object of a schema is read by the first of a few keywords that it has;
what stands beside it is dropped too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from yibu.engines.requests import ModelContext
from yibu.errors import InvalidRequestError
from yibu.messages import tr

Schema = dict[str, Any]

_CONSTRAINTS = frozenset(
    {"$ref", "oneOf", "anyOf", "allOf", "const", "enum", "properties", "additionalProperties", "required",
     "items", "prefixItems", "minItems", "maxItems", "pattern", "format", "minLength", "maxLength",
     "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
     # These have no rule at all.
     "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies",
     "patternProperties", "propertyNames", "minProperties", "maxProperties", "uniqueItems", "contains",
     "minContains", "maxContains", "multipleOf", "unevaluatedProperties", "unevaluatedItems",
     "additionalItems", "$dynamicRef", "$recursiveRef"}
)  # fmt: skip
"""Keywords that say what a value must be; the others (``title``, ``default`` …) only describe it."""

_OBJECT = frozenset({"properties", "additionalProperties", "required"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_LENGTHS = frozenset({"minLength", "maxLength"})
_FORMATS = re.compile(r"uuid[1-5]?|date|time|date-time")

_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
"""What ``\\d``, ``\\w`` and ``\\s`` are in a grammar, which has none of them; of white space a JSON string
holds the space alone as it is."""
_QUOTED = '"\\\\'
_OUTSIDE = r'"\\\x00-\x1F\x7F'
"""What no JSON string holds unescaped: an open character class must exclude it."""


def express(schema: Any, param: str, asked: ModelContext) -> Any:
    """The same schema with patterns that a grammar can express.

    Raises:
        InvalidRequestError: a keyword has no rule; ``param`` and the message's JSON pointer name it.
    """
    try:
        return _express(schema, "")
    except _Inexpressible as fault:
        pointer, reason = fault.args
        raise InvalidRequestError(
            "The schema's {pointer!r} cannot be kept to by model {model!r}: {reason} in "
            "{engine}'s grammars",
            pointer=pointer,
            model=asked.model,
            reason=reason,
            engine=asked.engine,
            hint="Take it out, leave 'strict' out and check the answer, or use a model on vLLM",
            param=param,
            code="unsupported_schema",
        ) from None


class _Inexpressible(Exception):  # noqa: N818 - never leaves this module
    """A keyword that has no rule: its JSON pointer and why."""


def _express(schema: Any, pointer: str) -> Any:
    if not isinstance(schema, dict):
        return schema
    read = _read(schema, pointer)
    for name in schema:
        if name in _CONSTRAINTS and name not in read and not _says_nothing(name, schema[name]):
            raise _Inexpressible(f"{pointer}/{name}", tr("{name!r} has no rule", name=name))
    return dict(_below(schema, pointer))


def _says_nothing(name: str, value: Any) -> bool:
    return value is None or (name == "uniqueItems" and value is False) or (
        name in ("minItems", "minLength", "minProperties") and value == 0
    ) or (name in ("unevaluatedProperties", "required") and value in (True, []))  # fmt: skip


def _read(schema: Schema, pointer: str) -> frozenset[str]:
    """The keywords of one object that llama.cpp evaluates, in its order."""
    kind = schema.get("type")
    if "$ref" in schema:
        if not str(schema["$ref"]).startswith("#/"):
            raise _Inexpressible(f"{pointer}/$ref", tr("a reference that does not begin with '#/'"))
        return frozenset({"$ref"})
    if first := _first(schema, "oneOf", "anyOf"):
        return first
    if isinstance(kind, list):
        read = [_read({**schema, "type": one}, pointer) for one in kind]
        return frozenset().union(*read)
    if first := _first(schema, "const", "enum"):
        return first
    return _read_typed(schema, kind, pointer)


def _first(schema: Schema, *names: str) -> frozenset[str]:
    return frozenset([name for name in names if name in schema][:1])


def _read_typed(schema: Schema, kind: Any, pointer: str) -> frozenset[str]:
    if kind in (None, "object") and ("properties" in schema or "additionalProperties" in schema):
        missing = set(schema.get("required") or ()) - set(schema.get("properties") or ())
        if missing:
            raise _Inexpressible(
                f"{pointer}/required", tr("a property that 'properties' does not name")
            )
        return _OBJECT
    if kind in (None, "array") and ("items" in schema or "prefixItems" in schema):
        return _read_array(schema, pointer)
    if kind in (None, "string"):
        return _read_string(schema, pointer)
    return _read_integer(schema, pointer) if kind == "integer" else frozenset()


def _read_array(schema: Schema, pointer: str) -> frozenset[str]:
    name = "items" if "items" in schema else "prefixItems"
    if isinstance(schema[name], dict):
        return frozenset({"items", "minItems", "maxItems"})
    if isinstance(schema[name], list):
        return frozenset({name})
    raise _Inexpressible(
        f"{pointer}/{name}", tr("{name!r} that is no schema has no rule", name=name)
    )


def _read_string(schema: Schema, pointer: str) -> frozenset[str]:
    if "pattern" in schema:
        return frozenset({"pattern"})
    if "format" in schema:
        if _FORMATS.fullmatch(str(schema["format"])):
            return frozenset({"format"})
        raise _Inexpressible(
            f"{pointer}/format", tr("the format {format!r} has no rule", format=schema["format"])
        )
    return _LENGTHS if schema.get("type") == "string" else frozenset()


def _read_integer(schema: Schema, pointer: str) -> frozenset[str]:
    for name in _BOUNDS & schema.keys():
        if not isinstance(schema[name], int):
            raise _Inexpressible(f"{pointer}/{name}", tr("a bound that is no whole number"))
    for name, other in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if name in schema and other in schema:
            raise _Inexpressible(
                f"{pointer}/{other}",
                tr("{other!r} beside {name!r} has no rule", other=other, name=name),
            )
    return _BOUNDS


def _below(schema: Schema, pointer: str) -> Iterator[tuple[str, Any]]:
    for name, value in schema.items():
        at = f"{pointer}/{name}"
        match name, value:
            case (("properties" | "$defs" | "definitions"), dict()):
                yield (
                    name,
                    {key: _express(one, f"{at}/{_escaped(key)}") for key, one in value.items()},
                )
            case (("anyOf" | "oneOf" | "prefixItems" | "items"), list()):
                yield name, [_express(one, f"{at}/{index}") for index, one in enumerate(value)]
            case (("items" | "additionalProperties"), dict()):
                yield name, _express(value, at)
            case "pattern", str():
                yield name, _pattern(value, at)
            case _:
                yield name, value


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


_TOKEN = re.compile(
    r"(?P<group>\((?P<special>\?(?!:)..?)?)"
    r"|(?P<open>\[\^?)(?P<members>(?:\\.|[^\]\\])*)\]"
    r"|\\(?P<escaped>.)"
    r"|(?P<dot>\.)"
    r"|(?P<plain>[^\\])",
    re.DOTALL,
)


def _pattern(pattern: str, pointer: str) -> str:
    """The pattern rewritten for a grammar.

    Raises:
        _Inexpressible: it is not anchored at both ends, or looks ahead, behind or back.
    """
    if len(pattern) < 2 or not (pattern.startswith("^") and pattern.endswith("$")):
        raise _Inexpressible(pointer, tr("a pattern that does not begin with '^' and end with '$'"))
    if pattern.endswith(r"\$"):
        raise _Inexpressible(pointer, tr("a pattern whose end is not open to be found"))
    parts: list[str] = []
    for token in _TOKEN.finditer(pattern[1:-1]):
        if token["special"]:
            raise _Inexpressible(pointer, tr("{group!r} in a pattern", group=token["group"]))
        if token["open"]:
            members = _members(token["members"], pointer)
            parts.append(f"[^{members}{_OUTSIDE}]" if token["open"] == "[^" else f"[{members}]")
        elif token["escaped"]:
            parts.append(_escape(token["escaped"], pointer))
        elif token["dot"]:
            parts.append(f"[^{_OUTSIDE}]")
        elif token["plain"] in ("^", "$", '"'):
            raise _Inexpressible(pointer, tr("{plain!r} within a pattern", plain=token["plain"]))
        else:
            parts.append(token[0])
    return f"^{''.join(parts)}$"


def _escape(letter: str, pointer: str) -> str:
    if letter in _CLASSES:
        return f"[{_CLASSES[letter]}]"
    if letter.upper() in ("D", "W", "S") and letter.isupper():
        return f"[^{_CLASSES[letter.lower()]}{_OUTSIDE}]"
    if letter.isalnum() or letter in _QUOTED:
        raise _Inexpressible(pointer, tr("'\\{letter}' in a pattern", letter=letter))
    # "-" and "/" need no escape, and a grammar's literal knows none for them.
    return f"\\{letter}" if letter in "^$.[]()|{}*+?" else letter


def _members(members: str, pointer: str) -> str:
    """The members of a class as a grammar writes them, without what a JSON string has to escape."""
    try:
        inside = re.compile(f"[{members}]")
    except re.error as error:
        raise _Inexpressible(
            pointer, tr("a class of characters that cannot be read ({error})", error=error)
        ) from None
    if not any(inside.match(letter) for letter in _QUOTED):
        return re.sub(r"\\(.)", lambda found: _member(found[1], pointer), members, flags=re.DOTALL)
    if not members.isascii():
        raise _Inexpressible(pointer, tr("a class of characters with '\"' in it"))
    kept = (chr(code) for code in range(0x20, 0x7F) if inside.match(chr(code)))
    return "".join(_literal(letter) for letter in kept if letter not in _QUOTED)


def _member(letter: str, pointer: str) -> str:
    if letter in _CLASSES:
        return _CLASSES[letter]
    if letter.isalnum():
        raise _Inexpressible(pointer, tr("'\\{letter}' in a class of characters", letter=letter))
    return _literal(letter)


def _literal(letter: str) -> str:
    """A character as a literal inside brackets."""
    return f"\\x{ord(letter):02X}" if letter in "]-[^" else letter

"""Every field that a request's JSON Schema has, as paths of the engines' request tables.

``tools[type=function].function.name``: an array's items stand under the array's own path, and the
members of a union under the constant that tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_DISCRIMINATORS = ("type", "role")


def fields(schema: Schema, root: Schema) -> frozenset[str]:
    """Paths of all fields; what refers to itself is walked once a way to it."""
    return frozenset(path for path in _walk(schema, root, "", ()) if path)


def _walk(schema: Any, root: Schema, path: str, seen: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    if isinstance(ref := schema.get("$ref"), str):
        if ref in seen:
            return
        yield from _walk(_resolve(ref, root), root, path, (*seen, ref))
        return
    for member in [
        member for word in ("allOf", "anyOf", "oneOf") for member in schema.get(word, ())
    ]:
        yield from _walk(member, root, path, seen)
    if isinstance(items := schema.get("items"), Mapping):
        yield from _walk(items, root, path, seen)
    if isinstance(properties := schema.get("properties"), Mapping):
        yield from _walk_object(properties, root, path, seen)
    else:
        yield path


def _walk_object(
    properties: Schema, root: Schema, path: str, seen: tuple[str, ...]
) -> Iterator[str]:
    variants = _variants(properties, root, path) if path else ()
    for below in variants or (path,):
        if variants:
            yield below
        for name, property_ in properties.items():
            if not (variants and name in _DISCRIMINATORS):
                inner = f"{below}.{name}" if below else name
                yield inner
                yield from _walk(property_, root, inner, seen)


def _variants(properties: Schema, root: Schema, path: str) -> tuple[str, ...]:
    """The path with each constant of the fields that tell a union's members apart."""
    for name in _DISCRIMINATORS:
        field = properties.get(name)
        if isinstance(field, Mapping) and isinstance(ref := field.get("$ref"), str):
            field = _resolve(ref, root)
        if isinstance(field, Mapping):
            constants = field.get("enum") or ([field["const"]] if "const" in field else [])
            if constants:
                return tuple(f"{path}[{name}={constant}]" for constant in constants)
    return ()


def _resolve(ref: str, root: Schema) -> Any:
    value: Any = root
    for step in ref.removeprefix("#/").split("/"):
        value = value[step]
    return value

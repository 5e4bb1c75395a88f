"""Values that a request's JSON Schema forbids, each in a request that is sound but for it.

One for every type, enum, constant, bound of a number, and length of a text or an array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_LONGEST = 70_000
"""Longer texts and lists than this are not made."""
_DEEPEST = 12
_WRONG = {"string": 5, "integer": 1.5, "number": "1", "boolean": "true", "array": 5, "object": 5}
"""By type, a value of another."""


class Limits:
    """Of the schemas in one document."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def broken(
        self, schema: Schema, path: str = "", seen: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, Any]]:
        """What breaks one limit, as ``path keyword`` and an instance of ``schema`` with the fault in it."""
        if isinstance(ref := schema.get("$ref"), str):
            if ref not in seen:
                yield from self.broken(self._resolved(schema), path, (*seen, ref))
            return
        for word in ("anyOf", "oneOf"):
            for member in schema.get(word, ()):
                yield from self.broken(member, path, seen)
        if "allOf" in schema:
            yield from self.broken(self._merged(schema), path, seen)
            return
        yield from self._of_value(schema, path)
        if isinstance(items := schema.get("items"), Mapping):
            for name, item in self.broken(items, path, seen):
                yield name, [item]
        properties = schema.get("properties", {})
        sound = self.sound(schema) if properties else {}
        for name, property_ in properties.items():
            inner = f"{path}.{name}" if path else name
            for at, value in self.broken(property_, inner, seen):
                yield at, {**sound, name: value}

    def _of_value(self, schema: Schema, path: str) -> Iterator[tuple[str, Any]]:
        if "enum" in schema or "const" in schema:
            yield f"{path} enum", "no such thing"
        elif path and (kind := schema.get("type")) in _WRONG:
            yield f"{path} type", _WRONG[kind]
        for word, step in (("minimum", -1), ("maximum", 1)):
            if isinstance(bound := schema.get(word), int | float):
                value = bound + step
                yield f"{path} {word}", int(value) if schema.get("type") == "integer" else value
        if (least := schema.get("minLength", 0)) > 0:
            yield f"{path} minLength", "x" * (least - 1)
        if (most := schema.get("maxLength", _LONGEST)) < _LONGEST:
            yield f"{path} maxLength", "x" * (most + 1)
        item = self.sound(schema.get("items", {})) if schema.get("type") == "array" else "x"
        if (least := schema.get("minItems", 0)) > 0:
            yield f"{path} minItems", [item] * (least - 1)
        if (most := schema.get("maxItems", _LONGEST)) < _LONGEST:
            yield f"{path} maxItems", [item] * (most + 1)

    def sound(self, schema: Schema, depth: int = 0) -> Any:
        """The smallest instance."""
        schema = self._resolved(schema)
        if "allOf" in schema:
            schema = self._merged(schema)
        if members := schema.get("oneOf") or schema.get("anyOf"):
            plain = [m for m in members if self._resolved(m).get("type") not in ("null", None)]
            return self.sound((plain or members)[0], depth + 1)
        if constants := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
            return constants[0]
        kind = schema.get("type", "object" if "properties" in schema else "string")
        match kind[0] if isinstance(kind, list) else kind:
            case "array":
                item = self.sound(schema.get("items", {}), depth + 1) if depth < _DEEPEST else "x"
                return [item] * schema.get("minItems", 1)
            case "integer" | "number":
                return schema.get("minimum", 1)
            case "boolean":
                return False
            case "object":
                properties = schema.get("properties", {})
                names = schema.get("required", ()) if depth < _DEEPEST else ()
                return {name: self.sound(properties.get(name, {}), depth + 1) for name in names}
        return "x" * max(1, schema.get("minLength", 1))

    def _merged(self, schema: Schema) -> Schema:
        """The members of ``allOf`` as one."""
        whole: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for member in schema["allOf"]:
            one = self._resolved(member)
            one = self._merged(one) if "allOf" in one else one
            for key, value in one.items():
                if key == "properties":
                    whole[key] = {**value, **whole.get(key, {})}
                elif key == "required":
                    whole[key] = [*whole.get(key, ()), *value]
                else:
                    whole.setdefault(key, value)
        return whole

    def _resolved(self, schema: Schema) -> Schema:
        while isinstance(ref := schema.get("$ref"), str):
            value: Any = self._root
            for step in ref.removeprefix("#/").split("/"):
                value = value[step]
            schema = value
        return schema

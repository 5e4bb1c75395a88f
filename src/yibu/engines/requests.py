"""How an engine treats each field of a request: data of the engine's folder, and the check.

A path names a field as ``text.format[type=json_schema].schema``: items of an array stand under the
array's own path, ``[type=…]`` takes the objects whose ``type`` is so, ``[role=*]`` any of them (of refused
ones: any that no other row names), and ``include[=…]`` is the value itself. ``metadata.**`` takes all that is below as well, but no variant in
brackets: each of those has a row of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from yibu.errors import InvalidRequestError
from yibu.messages import tr

Body = dict[str, Any]
Outcome = Literal["passed", "done", "ignored", "refused"]
"""The engine heeds it; yibu does it by the engine's other means; nobody does and the answer means the
same; a 400, because the answer would be another than the one asked for."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of an engine's table."""

    path: str
    outcome: Outcome
    why: str = ""
    """Of a refusal: the reason and an alternative, in one or two sentences."""
    unless: tuple[Any, ...] = ()
    """Values with which a refused field asks for nothing."""
    needs: str = ""
    """The feature (``LaunchPlan.features``) with which an engine supports a refused field."""
    unless_prefix: str = ""
    """Prefix with which a refused text is passed."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the engine, of several that make an answer."""

    path: str
    body: Body
    unsupported: InvalidRequestError | None = None
    """The client's error when the engine answers 501 for this model."""


Steps = Generator[Call, Body, Body]
"""Yields requests, is sent the engine's answers, and returns the answer to the client."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What requests may ask of one model, where the engine's models differ."""

    features: frozenset[str] | None = None
    """None where they are not known: then the engine decides."""
    dimensions: tuple[int, ...] = ()
    """The lengths that its embeddings can be cut to."""
    vocabulary: int | None = None
    """Tokens that it knows."""


UNKNOWN = Abilities()


@dataclass(frozen=True, slots=True)
class ModelContext:
    """The model that a request is for."""

    model: str
    engine: str
    abilities: Abilities = UNKNOWN
    max_context: int | None = None
    """Tokens; None: unknown."""


Prepare = Callable[[Body, ModelContext], Callable[[], Steps] | None]
"""Rewrites a body for the engine; returns how to answer it by several requests, where it takes that.

Raises InvalidRequestError where a value asks for what the engine does not do.
"""


def passed(*paths: str) -> tuple[Rule, ...]:
    return tuple(Rule(path, "passed") for path in paths)


def done(why: str, *paths: str) -> tuple[Rule, ...]:
    return tuple(Rule(path, "done", why) for path in paths)


def ignored(why: str, *paths: str) -> tuple[Rule, ...]:
    return tuple(Rule(path, "ignored", why) for path in paths)


def refused(
    why: str,
    *paths: str,
    unless: tuple[Any, ...] = (),
    needs: str = "",
    unless_prefix: str = "",
) -> tuple[Rule, ...]:
    return tuple(Rule(path, "refused", why, unless, needs, unless_prefix) for path in paths)


class _Node:
    """A node in the tree of refused paths, all of which are searched in one walk."""

    __slots__ = ("fields", "rule", "variants")

    def __init__(self) -> None:
        self.rule: Rule | None = None
        self.fields: dict[str, _Node] = {}
        self.variants: dict[str, dict[str, _Node]] = {}
        """By the discriminating field (``""``: the value itself), then by its value."""

    def find(self, value: Any, features: frozenset[str] | None) -> tuple[str, Rule] | None:
        """The first refused field in ``value`` as the rest of its path, and its rule."""
        if value is None or value == []:
            return None
        rule = self.rule
        if rule is not None and not _asks_nothing(rule, value) and not _has(rule.needs, features):
            return "", rule
        if isinstance(value, list):
            if self.fields or self.variants:
                for index, item in enumerate(value):
                    if found := self._below(item, features):
                        return f"[{index}]{found[0]}", found[1]
            return None
        return self._below(value, features)

    def _below(self, value: Any, features: frozenset[str] | None) -> tuple[str, Rule] | None:
        members = value if isinstance(value, dict) else {"": value}
        for name, nodes in self.variants.items():
            constant = members.get(name)
            if constant is None and name == "type":
                node = nodes.get(
                    "message"
                )  # what an item of Responses' input is that does not say it
            else:
                node = nodes.get(constant, nodes.get("*")) if isinstance(constant, str) else None
            if node is not None and (found := node.find(value, features)):
                return found
        for name, node in self.fields.items():
            if name in members and (found := node.find(members[name], features)):
                return f".{name}{found[0]}", found[1]
        return None


def _asks_nothing(rule: Rule, value: Any) -> bool:
    if rule.unless_prefix and isinstance(value, str):
        return value.startswith(rule.unless_prefix)
    return value in rule.unless


def _has(need: str, features: frozenset[str] | None) -> bool:
    return bool(need) and (features is None or need in features)


class RequestTable:
    """An engine's table: rules by operation (its path), and functions that prepare bodies."""

    def __init__(
        self,
        rules: Mapping[str, Iterable[Rule]],
        prepare: Mapping[str, Prepare] | None = None,
    ) -> None:
        self.rules = {path: tuple(rows) for path, rows in rules.items()}
        self._prepare = dict(prepare or {})
        self._refused = {path: _tree(rows) for path, rows in self.rules.items()}

    def prepare(self, path: str, body: Body, asked: ModelContext) -> Callable[[], Steps] | None:
        """Refuse what the engine would ignore, and rename what it calls differently.

        Raises:
            InvalidRequestError: with ``param`` naming the field.
        """
        tree = self._refused.get(path)
        if tree is not None:
            for name in tree.fields.keys() & body.keys():
                if found := tree.fields[name].find(body[name], asked.abilities.features):
                    raise refusal(name + found[0], found[1].why, asked)
        prepare = self._prepare.get(path)
        return None if prepare is None else prepare(body, asked)


def as_object(value: Any) -> Body:
    """The value if it is an object, else an empty one: the engine refuses other types."""
    return value if isinstance(value, dict) else {}


def refusal(param: str, why: str, asked: ModelContext) -> InvalidRequestError:
    return InvalidRequestError(
        tr(
            "{param!r} cannot be had from model {model!r}, whose engine is {engine}",
            param=param,
            model=asked.model,
            engine=asked.engine,
        ),
        hint=why,
        param=param,
        code="unsupported_parameter",
    )


_STEP = re.compile(r"(?P<name>[^.\[\]]+)|\[(?P<field>\w*)=(?P<constant>[^\]]*)\]")


def _tree(rows: Sequence[Rule]) -> _Node:
    tree = _Node()
    for row in rows:
        if row.outcome == "refused":
            node = tree
            for step in _STEP.finditer(row.path):
                if step["name"]:
                    node = node.fields.setdefault(step["name"], _Node())
                elif step["constant"] != "*" or step.end() == len(row.path):
                    variants = node.variants.setdefault(step["field"], {})
                    node = variants.setdefault(step["constant"], _Node())
            node.rule = row
    for row in rows:
        if row.outcome != "refused":
            _name_variants(tree, row.path)
    return tree


def _name_variants(tree: _Node, path: str) -> None:
    """Take the variants of a path that is not refused out of those that ``[…=*]`` refuses."""
    node: _Node | None = tree
    for step in _STEP.finditer(path):
        if node is None:
            return
        if step["name"]:
            node = node.fields.get(step["name"])
        elif step["constant"] != "*":
            variants = node.variants.get(step["field"], {})
            if "*" in variants:
                variants.setdefault(step["constant"], _Node())
            node = variants.get(step["constant"])

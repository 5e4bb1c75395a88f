"""Inserts entries of models into a yibu.yaml without changing the rest of its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

Entry = Mapping[str, Any]


def entries_text(entries: Sequence[Entry]) -> str:
    """A file with nothing but these."""
    return _dump({"models": [dict(entry) for entry in entries]})


def with_entries(text: str, entries: Sequence[Entry]) -> str:
    """The text with the entries in it: in the place of those of the same name, else behind the others.

    Raises:
        yaml.YAMLError: the text is no YAML.
    """
    root = yaml.compose(text)
    if root is None:
        return text + ("" if not text or text.endswith("\n") else "\n") + entries_text(entries)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return _rewritten(text, entries)
    models = next((value for key, value in root.value if key.value == "models"), None)
    if models is None:
        return text.rstrip("\n") + "\n\n" + entries_text(entries)
    if not isinstance(models, yaml.SequenceNode) or models.flow_style:
        return _rewritten(text, entries)
    for entry in entries:
        text = _with_entry(text, entry)
    return text


def _with_entry(text: str, entry: Entry) -> str:
    """``text`` has a list of models in block style."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    models = next(value for key, value in root.value if key.value == "models")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    margin = " " * models.start_mark.column
    block = [margin + line for line in _dump([dict(entry)]).splitlines(keepends=True)]
    first = after = _last_line(models) + 1
    for item in models.value:
        if _name(item) == entry.get("name"):
            first, after = item.start_mark.line, _last_line(item) + 1
    return "".join([*lines[:first], *block, *lines[after:]])


def _name(item: yaml.Node) -> str | None:
    if not isinstance(item, yaml.MappingNode):
        return None
    return next((value.value for key, value in item.value if key.value == "name"), None)


def _last_line(node: yaml.Node) -> int:
    """The last line on which something of it stands, from 0: a block's own end is where the next begins."""
    if not isinstance(node, yaml.CollectionNode) or not node.value or node.flow_style:
        end = node.end_mark
        return int(end.line - (1 if end.column == 0 and end.line > node.start_mark.line else 0))
    if isinstance(node, yaml.MappingNode):
        return max(max(_last_line(key), _last_line(value)) for key, value in node.value)
    return max(_last_line(item) for item in node.value)


def _rewritten(text: str, entries: Sequence[Entry]) -> str:
    """The whole file rewritten, where it is not in block style: JSON, for instance."""
    tree = yaml.safe_load(text)
    if not isinstance(tree, dict):
        tree = {}
    names = {entry.get("name") for entry in entries}
    others = [one for one in tree.get("models") or [] if one.get("name") not in names]
    return _dump({**tree, "models": [*others, *(dict(entry) for entry in entries)]})


def _dump(content: Any) -> str:
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=100)

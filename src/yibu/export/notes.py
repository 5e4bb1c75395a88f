"""YAML with comments: a key made by ``why`` is written as a comment above the key that follows."""

from __future__ import annotations

import re
from typing import Any

import yaml

from yibu.messages import filled

_WIDTH = 1000
"""Lines are not broken: a command stays one."""
_MARK = "\N{NUMBER SIGN}why"
_LINE = re.compile(rf"^( *)'?{_MARK}(\d+)[^\n]*$", re.MULTILINE)


class Notes:
    """The comments of one document."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def why(self, text: str) -> dict[str, None]:
        """A pair to unpack into a mapping, anywhere but before its first key in a list's item.

        The text is translated, as ``tr`` does.
        """
        self._texts.append(filled(text))
        return {f"{_MARK}{len(self._texts) - 1}": None}

    def dump(self, *documents: Any, top: str = "") -> str:
        """The documents' text; ``top`` is a comment at their beginning."""
        body = yaml.dump_all(
            documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH,
            default_flow_style=False, explicit_start=len(documents) > 1,
        )  # fmt: skip
        body = _LINE.sub(lambda found: comment(self._texts[int(found[2])], found[1]), body)
        return (comment(top) + "\n" if top else "") + body


def comment(text: str, indent: str = "") -> str:
    """The lines of a text as comments."""
    return "\n".join(f"{indent}# {line}".rstrip() for line in text.splitlines())


class _Dumper(yaml.SafeDumper):
    """Several lines as a block, as people write them; no anchors."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Items of lists are indented below their key."""
        del indentless
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _nothing(dumper: yaml.SafeDumper, _nothing: None) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:null", "")


_Dumper.add_representer(str, _text)
_Dumper.add_multi_representer(str, _text)
_Dumper.add_representer(type(None), _nothing)

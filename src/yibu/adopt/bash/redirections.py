"""A command's output file, and its here-document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tree_sitter import Node

from yibu.adopt.bash.expand import Expander
from yibu.adopt.bash.syntax import ScriptSource
from yibu.adopt.bash.values import Text


@dataclass(frozen=True, slots=True)
class Redirections:
    """The redirections of a command."""

    output: str | None = None
    """The file that stdout goes to."""
    stdin: Text | None = None
    """A here-document or here-string."""

    def to(self, file: str | None) -> Redirections:
        return replace(self, output=file or self.output)


def read_redirections(
    nodes: Sequence[Node], source: ScriptSource, expander: Expander, before: Redirections
) -> tuple[Redirections, list[Text]]:
    """The redirections, and the words behind them that are the command's arguments.

    The grammar takes all words up to the line's end as a redirection's destinations; bash takes one.
    """
    found, arguments = before, list[Text]()
    for node in nodes:
        if node.type == "herestring_redirect":
            found = replace(found, stdin=expander.text_of(node.named_children[-1]))
        elif node.type == "heredoc_redirect":
            found, more = _heredoc(node, source, expander, found)
            arguments += more
        elif node.type == "file_redirect":
            fields = [f for c in node.children_by_field_name("destination") for f in
                      expander.fields(c)]  # fmt: skip
            sign = next(c.type for c in node.children if not c.is_named)
            descriptor = next((source.text(c) for c in node.children
                               if c.type == "file_descriptor"), "1")  # fmt: skip
            written = sign in (">", ">>", ">|", "&>", "&>>") and descriptor == "1"
            if written and fields and fields[0].gap is None:
                found = found.to(fields[0].value)
            arguments += fields[1:]
    return found, arguments


def _heredoc(
    node: Node, source: ScriptSource, expander: Expander, before: Redirections
) -> tuple[Redirections, list[Text]]:
    start = next((c for c in node.children if c.type == "heredoc_start"), None)
    body = next((c for c in node.children if c.type == "heredoc_body"), None)
    quoted = start is not None and source.text(start)[:1] in ("'", '"', "\\")
    text = Text("")
    if body is not None:
        raw = source.text(body)
        expanded = any(c.is_named and c.type != "heredoc_content" for c in body.children)
        text = Text(raw, source.gap(body) if expanded and not quoted else None)
    inner = [c for c in node.children if c.type.endswith("redirect")]
    found, more = read_redirections(inner, source, expander, replace(before, stdin=text))
    more += [f for c in node.children_by_field_name("argument") for f in expander.fields(c)]
    return found, more

"""Every text has its translation, with the same placeholders, and none is made of fragments."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

from babel.messages.catalog import Catalog

from tests.support.sources import dotted, modules, nodes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import messages as script  # noqa: E402

_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)((?:![rsa])?(?::[^{}]*)?)\}")
_COMMAND = re.compile(r"yibu [a-z]+(?: [a-z]+)?|--[a-z][a-z-]+|\b[A-Z][A-Z_]{3,}\b")


@cache
def catalogue() -> Catalog:
    """Read where a test asks for it: every worker of every run imports this file."""
    return script.catalogue()


def _fields(text: str) -> set[tuple[str, str]]:
    return {(found[1], found[2]) for found in _FIELD.finditer(text) if found[1]}


def test_the_catalogue_is_that_of_the_source() -> None:
    assert script.PO.read_bytes() == script.po_bytes(script.updated(catalogue(), script.texts())), (
        "make messages"
    )
    assert script.PO.with_suffix(".mo").read_bytes() == script.mo_bytes(catalogue()), (
        "make messages"
    )


def _words(text: str) -> bool:
    bare = _FIELD.sub("", text)
    return len(re.findall(r"\b[a-z]{3,}\b", re.sub(r"`[^`]*`|yibu[ \w-]*", "", bare))) > 2


def test_every_text_is_translated() -> None:
    missing = [message.id for message in catalogue() if message.id and not message.string]
    assert not missing, f"{len(missing)} texts have no translation, such as {missing[:3]}"


def test_placeholders_are_the_same() -> None:
    wrong = [
        (message.id, message.string)
        for message in catalogue()
        if message.id and _fields(message.id) != _fields(message.string)
    ]
    assert not wrong


def test_what_is_typed_is_not_translated() -> None:
    """Commands, flags and variables stand in the translation as they stand in the text."""
    wrong = [
        (message.id, message.string)
        for message in catalogue()
        if message.id
        and not set(re.findall(r"--[a-z][a-z-]+|[A-Z]+_[A-Z_]+", message.id))
        <= set(re.findall(r"--[a-z][a-z-]+|[A-Z]+_[A-Z_]+", message.string))
    ]
    assert not wrong


def test_a_translation_is_chinese() -> None:
    """…but for what has no words of its own."""
    same = [
        m.id
        for m in catalogue()
        if m.id and m.id == m.string and _words(m.id) and not _TYPED.match(m.id)
    ]
    assert not same


def test_no_sentence_is_made_of_fragments() -> None:
    wrong = [fault for path in modules() for fault in _fragments(path)]
    assert not wrong


def _fragments(path: Path) -> list[str]:
    wrong = []
    for node in nodes(path):
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.Call) and dotted(child.func) == "tr" and child.args):
                continue
            first = child.args[0]
            assert isinstance(
                first, ast.Constant | ast.Name | ast.Attribute | ast.Call | ast.Subscript
            ), f"{path}:{child.lineno}: tr() takes a template, not an f-string or a sum"
            text = first.value if isinstance(first, ast.Constant) else ""
            if isinstance(node, ast.BinOp | ast.AugAssign) and _is_sentence(node, child):
                wrong.append(f"{path}:{child.lineno}: added to another text")
            if text != text.strip(" ") or (text[:1] in (",", ";", ")") and text[:1]):
                wrong.append(f"{path}:{child.lineno}: begins or ends inside a sentence: {text!r}")
    return wrong


def _is_sentence(node: ast.AST, child: ast.Call) -> bool:
    """Whether what is added to the text is more than a mark before it or a line's end."""
    others = [each for each in ast.iter_child_nodes(node) if each is not child]
    return not any(
        isinstance(each, ast.Constant) and isinstance(each.value, str) and not each.value.strip()
        for each in others
    )


def test_an_errors_words_stay_a_message() -> None:
    """In an f-string, or through `redact`, they would be in this process's language for ever."""
    told = re.compile(r"(\.(message|hint)|\[['\"](cause|hint|message)['\"]\])$")
    found = []
    for path in modules():
        for node in nodes(path):
            match node:
                case ast.JoinedStr():
                    parts = [
                        part.value for part in node.values if isinstance(part, ast.FormattedValue)
                    ]
                case ast.Call(func=ast.Name(id="redact")):
                    parts = list(node.args)
                case _:
                    continue
            if any(told.search(ast.unparse(part)) for part in parts):
                found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    # What a terminal is told, in its own language.
    assert [each for each in found if not re.search(r"/(cli/|errors\.py)", each)] == []


def test_nothing_is_decided_by_an_errors_words() -> None:
    """`"in use" in error.message` is false in another language: kinds of errors are classes."""
    found = []
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                words = any(
                    isinstance(one, ast.Constant) and re.search(r"[a-z]{2}", str(one.value))
                    for one in sides
                )
                said = words and any(
                    re.search(
                        r"\w\.(message|hint)$|^str\(\w*error\)$|^(hint|sentence)$",
                        ast.unparse(one),
                    )
                    for one in sides
                )
                if said:
                    found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert not found


_SAYS = re.compile(r"(?:^|\.)(?:talk|Finding|Column|Check|Gap)$")
_TYPED = re.compile(
    r"\s*(?:yibu:? |kind: |numprocs=|chmod |mkdir |matrix$|export |ps aux|-o FILE|options: |$)"
)
_ARGUMENTS = {"hint", "cause", "param", "code", "retry_after", "should_retry"}
"""Of an error, beside the values of its texts."""


def test_what_is_said_has_a_translation() -> None:
    """Errors, hints, findings and lines on the terminal are templates, never English put together."""
    wrong = [
        f"{path.relative_to(script.SOURCE)}:{node.lineno}: {text!r}"
        for path in modules()
        if path.parent.name != "launchers"
        for node in nodes(path)
        if isinstance(node, ast.Call)
        for value in _said(node)
        for text in _bare(value)
    ]
    assert not wrong


def _said(call: ast.Call) -> list[ast.expr]:
    """What a call shows to people, but for the templates of errors."""
    said = dotted(call.func)
    if script.is_error(said):
        return [each for each in script.said_by_error(call) if not isinstance(each, ast.Constant)]
    hints = [each.value for each in call.keywords if each.arg == "hint"]
    return [*call.args, *hints] if _SAYS.search(said) else []


def test_an_errors_values_are_shown() -> None:
    """A value that neither the message nor the hint names is a misspelt one."""
    wrong = []
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.Call) and script.is_error(dotted(node.func)):
                said = [one for one in script.said_by_error(node) if isinstance(one, ast.Constant)]
                shown = {name for one in said for name, _ in _fields(str(one.value))}
                given = {each.arg for each in node.keywords} - _ARGUMENTS
                if said and given - shown:
                    wrong.append(f"{path}:{node.lineno}: {given - shown}")
    assert not wrong


def test_words_for_an_empty_list_are_translated() -> None:
    """``", ".join(names) or "none"`` stands in a sentence, which is in the reader's language."""
    word = re.compile(r'\bor "(?:none|nothing|missing|unset)"')
    found = [
        f"{path.relative_to(script.SOURCE)}: {match[0]}"
        for path in sorted(script.SOURCE.rglob("*.py"))
        if path.parent.name != "launchers"  # of the engine's own environment, to its log
        for match in word.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def _bare(node: ast.AST) -> list[str]:
    """The English of an expression's own strings."""
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
        said = re.search("[A-Za-z]{3,}", text) and script.is_text(text)
        return [text] if said and not _TYPED.match(text) else []
    if isinstance(node, ast.JoinedStr) and _TYPED.match(ast.unparse(node)[2:]):
        return []
    if isinstance(node, ast.IfExp):
        return [*_bare(node.body), *_bare(node.orelse)]
    if isinstance(node, ast.JoinedStr | ast.BinOp | ast.BoolOp | ast.FormattedValue):
        return [text for child in ast.iter_child_nodes(node) for text in _bare(child)]
    return []

"""What is wrong with a text that is no YAML: libyaml says it in English only, and often of the line behind."""

from __future__ import annotations

import re
import unicodedata

from yibu.messages import Message, filled, tr

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|(?<!\S)#.*")
_CURLY = {"“": '"', "”": '"', "‘": "'", "’": "'"}
_FULL_WIDTH = re.compile("[：，｛｝［］－＂＇＃＆＊\u3000\xa0“”‘’]")
_NO_SPACE = re.compile(r"[\s-]*(\w+)(?::(?!//)\S|\s*=)")
_PROBLEMS = {
    "but found another document": tr("a second document begins; a configuration is one"),
    "block sequence entries are not allowed in this context": tr("a list cannot begin here"),
    "control characters are not allowed": tr("a control character stands here"),
    "could not find expected ':'": tr("expected ':' after the key"),
    "did not find expected '-' indicator": tr("expected '-', as in the lines of the list before"),
    "did not find expected ',' or ']'": tr("expected ',' or ']'"),
    "did not find expected ',' or '}'": tr("expected ',' or '}'"),
    "did not find expected <document start>": tr("expected the end of the file, or '---'"),
    "did not find expected alphabetic or numeric character": tr("expected a name after & or *"),
    "did not find expected key": tr("expected a key: the indentation fits no line before"),
    "did not find expected node content": tr("expected a value"),
    "found a tab character that violates indentation": tr("a tab stands where YAML wants spaces"),
    "found character that cannot start any token": tr("a value cannot begin with this character"),
    "found undefined alias": tr("an alias (*name) has no anchor (&name) before it"),
    "found unexpected document indicator": tr("'---' or '...' stands inside a quoted text"),
    "found unexpected end of stream": tr("the file ends inside a quoted text"),
    "found unknown escape character": tr("no such escape: in double quotes, write \\\\ for \\"),
    "mapping keys are not allowed in this context": tr("a key cannot begin here"),
    "mapping values are not allowed in this context": tr(
        "':' is not allowed here: put a text that holds it in quotes"
    ),
}


def problem_text(problem: object) -> str:
    """The problem that a parser names; one of our own is a message already."""
    if isinstance(problem, Message):
        return problem
    known = _PROBLEMS.get(str(problem))
    return str(problem) if known is None else filled(known)


def full_width(line: str) -> tuple[int, str] | None:
    """The column, from 1, of a full-width character outside of quotes, and what to write in its place."""
    bare = _QUOTED.sub(lambda quoted: " " * len(quoted[0]), line)
    if not (found := _FULL_WIDTH.search(bare)):
        return None
    wanted = _CURLY.get(found[0]) or unicodedata.normalize("NFKC", found[0])
    text = tr("{found!r} has to be {wanted!r} in YAML", found=found[0], wanted=wanted)
    return found.start() + 1, text


def without_space(line: str) -> tuple[int, str] | None:
    """The column, from 1, of a key that no space parts from its value, and what to write."""
    if not (found := _NO_SPACE.match(line)):
        return None
    return found.start(1) + 1, tr("write {key}: and then a space", key=found[1])

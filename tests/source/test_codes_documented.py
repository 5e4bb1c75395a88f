"""Every status and code that the gateway answers with stands in docs/api.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.sources import SOURCE, modules, nodes
from yibu.engines.answers import CONTEXT_EXCEEDED
from yibu.errors import RequestError
from yibu.gateway import app, server  # noqa: F401  (imports every error's module)
from yibu.gateway.http import connection  # noqa: F401

ROOT = Path(__file__).parents[2]
SOURCES = ("errors.py", "gateway", "accounts", "engines", "node/scheduler")
ROW = re.compile(r"^\| (\d{3}) \| (.*?) \| .* \|$", re.MULTILINE)


def documented() -> set[tuple[int, str]]:
    text = (ROOT / "docs/api.md").read_text()
    return {
        (int(status), code)
        for status, codes in ROW.findall(text)
        for code in re.findall(r"`(\w+)`", codes)
    }


def written(path: Path) -> Iterator[str]:
    """The codes in a file: ``default_code = …``, ``code=…``, ``RequestFault(…)``."""
    for node in nodes(path):
        values: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            values = [node.value] if names & {"code", "default_code"} else []
        elif isinstance(node, ast.Call):
            values = [word.value for word in node.keywords if word.arg == "code"]
            if isinstance(node.func, ast.Name) and node.func.id == "RequestFault":
                values += node.args[:1]
        for value in values:
            if isinstance(value, ast.IfExp):
                values += [value.body, value.orelse]
            elif isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
                yield value.value
            elif isinstance(value, ast.Name) and value.id == "CONTEXT_EXCEEDED":
                yield CONTEXT_EXCEEDED


def codes(*parts: str) -> set[str]:
    """The codes in files and folders of the package."""
    folders = [SOURCE / part for part in parts]
    return {
        code
        for path in modules()
        if any(map(path.is_relative_to, folders))
        for code in written(path)
    }


def kinds(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__.startswith(("yibu.errors", "yibu.gateway")):
            yield from kinds(below)


def test_every_code_in_the_source_is_in_the_document() -> None:
    found = codes(*SOURCES)
    assert {"too_many_connections", "invalid_type", "unsupported_content", "queue_full"} <= found
    assert found <= {code for _, code in documented()}


def test_every_error_is_documented_with_its_status() -> None:
    rows = documented()
    missing = {
        (kind.status, kind.default_code)
        for kind in kinds(RequestError)
        if kind.default_code is not None and (kind.status, kind.default_code) not in rows
    }
    assert missing == set()


def test_the_speech_engines_codes_are_named() -> None:
    text = (ROOT / "docs/api.md").read_text()
    found = codes("speech")
    assert {code for code in found if f"`{code}`" not in text} == set()


def test_every_documented_code_exists() -> None:
    found = codes(*SOURCES)
    assert {code for _, code in documented()} <= found


WHOLE = {"invalid_json", "invalid_multipart", "duplicate_header", "unsupported_media_type"}
"""Codes of refusals for which no field is to blame."""


def test_a_refusal_names_the_field_at_fault() -> None:
    folders = [SOURCE / part for part in SOURCES]
    for path in modules():
        if not any(map(path.is_relative_to, folders)):
            continue
        for node in nodes(path):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            words = {word.arg: word.value for word in node.keywords}
            if node.func.id == "InvalidRequestError" and "param" not in words:
                code = words.get("code")
                assert isinstance(code, ast.Constant), (path.name, node.lineno)
                assert code.value in WHOLE, (path.name, node.lineno)

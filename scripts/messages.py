"""The catalogues of yibu's texts: extracted from the source, compared, compiled.

    messages.py            bring the catalogue up to date with the source and compile it
    messages.py --missing  print what has no translation, as JSON: [{"id": …, "comment": …}]
    messages.py --fill F   take translations from a JSON object {id: translation} in F

Texts are the first argument of ``tr()`` and of an error, and an error's ``hint``; of the command line also the docstrings of verbs
(their help) and the headings of tables; what the engines' ``log.toml`` say of causes of failure, and their
``server.toml`` of flags; the words of the
Grafana dashboard and of Prometheus' alerts; the files of texts that the command line has; and the
descriptions in yibu.yaml's schema.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from yibu.cli import words
from yibu.cli.mistyped import typer_texts
from yibu.config.schema import published
from yibu.export.grafana import alerts, rows
from yibu.messages.message import SYSTEM

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "yibu"
LOCALE = SOURCE / "messages" / "locale"
MODELS = SOURCE / "hub" / "catalogue.toml"
LANGUAGE = "zh_CN"
PO = LOCALE / LANGUAGE / "LC_MESSAGES" / "yibu.po"
_NO_DATE = datetime(2026, 1, 1, tzinfo=UTC)
"""The file is the same whenever it is made."""
_SAY = {"tr", "output.say", "option", "argument", "why", "notes.why"}
_TABLES = {"output.table", "output.listing"}
_ERROR = re.compile(r"(?:^|\.)[A-Z]\w*Error$")
_BUILT_IN = re.compile(
    r"(?:Assertion|Attribute|Key|Launch|Unpickling|OS|Runtime|Sleep|TooLong|Type|Value)Error$"
)
"""Those of Python, and those that are logged and shown to nobody."""

_ARGPARSE = (
    "%(prog)s: error: %(message)s\n",
    "argument %(argument_name)s: %(message)s",
    "expected one argument",
    "invalid choice: %(value)r (choose from %(choices)s)",
    "options",
    "show this help message and exit",
    "the following arguments are required: %s",
    "unrecognized arguments: %s",
    "usage: ",
)
"""What argparse looks up by gettext, for `yibu.speech`."""


def texts() -> dict[str, set[str]]:
    """Each text of the source with the files that say it."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = str(path.relative_to(SOURCE))
        for text in _texts(tree, verbs="cli/verbs/" in name):
            found.setdefault(text, set()).add(name)
    tables = ("engines/**/log.toml", "engines/*/server.toml", "*/failures.toml")
    for path in sorted(path for pattern in tables for path in SOURCE.glob(pattern)):
        for text in _of_table(tomllib.loads(path.read_text(encoding="utf-8"))):
            found.setdefault(text, set()).add(str(path.relative_to(SOURCE)))
    for name, said in _of_files():
        found.setdefault(said, set()).add(name)
    for entry in tomllib.loads(MODELS.read_text(encoding="utf-8"))["model"]:
        found.setdefault(entry["about"], set()).add("hub/catalogue.toml")
    for text in _of_dashboard():
        found.setdefault(text, set()).add("export/dashboard.yaml")

    def described(text: str) -> str:
        found.setdefault(text, set()).add("config/schema.py")
        return text

    published(described)
    return found


def _of_dashboard() -> Iterator[str]:
    """What alerts say, titles and notes of panels, and legends that have a word beside their labels."""
    for alert in alerts():
        yield from alert["annotations"].values()
    for row, panels in rows().items():
        yield row
        for panel in panels:
            yield from filter(None, (panel.title, panel.about))
            yield from (
                one
                for one in panel.queries.values()
                if re.search("[A-Za-z]{3}", re.sub(r"\{\{\w+\}\}", "", one))
            )


def _of_table(table: dict[str, Any]) -> Iterator[str]:
    """What causes of failure say, of engines and of uv, and why a server's flags are left out."""
    yield from (*table.get("unused", {}).values(), *table.get("refused", {}).values())
    causes = (*table.get("cause", ()), *table.get("shared", {}).values(), *table.get("failure", ()))
    for cause in causes:
        yield from (cause[name] for name in ("explanation", "message", "hint") if name in cause)


def _of_files() -> Iterator[tuple[str, str]]:
    """Texts that stand in files of their own: the system's words, codes, what typer says, the example."""
    yield from (("messages/system.txt", line) for line in SYSTEM)
    yield from (("argparse", line) for line in _ARGPARSE)
    for _, text in words.table():
        yield "cli/words.txt", text
    typer = typer_texts()
    refusals = [refusal["text"] for refusal in typer["refusal"]]
    for text in (*typer["whole"], *typer["parts"].values(), *refusals):
        yield "cli/typer.toml", text
    yield "cli/example.yaml", (SOURCE / "cli/example.yaml").read_text("utf-8")


def _texts(tree: ast.Module, *, verbs: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _said(node)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "columns":
            yield from filter(None, map(_constant, getattr(node.value, "elts", ())))
        elif verbs and isinstance(node, ast.FunctionDef) and _is_verb(node.name):
            yield from filter(None, [ast.get_docstring(node)])


def _is_verb(function: str) -> bool:
    return function[0] != "_" and function != "register"


def _said(call: ast.Call) -> Iterator[str]:
    function = _dotted(call.func)
    if function in _SAY and call.args and (text := _constant(call.args[0])):
        yield text
    elif is_error(function):
        yield from filter(is_text, filter(None, map(_constant, said_by_error(call))))
    elif function in _TABLES and len(call.args) > 1 and isinstance(call.args[1], ast.Tuple):
        yield from filter(None, map(_constant, call.args[1].elts))


def is_error(function: str) -> bool:
    return bool(_ERROR.search(function)) and not _BUILT_IN.search(function)


def said_by_error(call: ast.Call) -> list[ast.expr]:
    """An error's message and hint, of ``… if … else …`` both; a constant among them is a template."""
    said = [*call.args[:1], *(each.value for each in call.keywords if each.arg == "hint")]
    return [one for each in said for one in _alternatives(each)]


def _alternatives(said: ast.expr) -> list[ast.expr]:
    if isinstance(said, ast.IfExp):
        return [*_alternatives(said.body), *_alternatives(said.orelse)]
    return [said]


def is_text(constant: str) -> bool:
    """Words, and not a code such as "timeout"."""
    return " " in constant and bool(re.search("[A-Za-z]{2,}", constant))


def _dotted(function: ast.expr) -> str:
    match function:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name(module), name):
            return f"{module}.{name}"
    return ""


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def catalogue(po: Path = PO) -> Catalog:
    if not po.exists():
        return Catalog(locale=LANGUAGE, charset="utf-8")
    with po.open("rb") as file:
        return read_po(file, locale=LANGUAGE)


def updated(old: Catalog, found: dict[str, set[str]]) -> Catalog:
    """A catalogue of these texts and no others, with the translations that there are."""
    new = Catalog(
        locale=LANGUAGE,
        charset="utf-8",
        project="yibu",
        header_comment="# yibu, Apache-2.0",
        fuzzy=False,
    )
    for text, files in sorted(found.items()):
        known = old.get(text)
        new.add(text, known.string if known else "", auto_comments=sorted(files))
    return new


def po_bytes(catalog: Catalog) -> bytes:
    written = io.BytesIO()
    write_po(written, catalog, width=100, no_location=True, omit_header=False)
    kept = [
        line
        for line in written.getvalue().decode().splitlines()
        if not line.startswith(('"POT-Creation-Date', '"PO-Revision-Date', '"Generated-By'))
    ]
    return ("\n".join(kept) + "\n").encode()


def mo_bytes(catalog: Catalog) -> bytes:
    written = io.BytesIO()
    catalog.creation_date = catalog.revision_date = _NO_DATE
    write_mo(written, catalog)
    return written.getvalue()


def _save(catalog: Catalog) -> None:
    PO.parent.mkdir(parents=True, exist_ok=True)
    PO.write_bytes(po_bytes(catalog))
    PO.with_suffix(".mo").write_bytes(mo_bytes(catalogue()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--fill", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    catalog = updated(catalogue(), texts())
    for path in arguments.fill:
        for text, translation in json.loads(path.read_text(encoding="utf-8")).items():
            if (message := catalog.get(text)) is not None:
                message.string = translation
    _save(catalog)
    missing = [m for m in catalog if m.id and not m.string]
    if arguments.missing:
        json.dump(
            [{"id": m.id, "files": m.auto_comments} for m in missing],
            sys.stdout,
            ensure_ascii=False,
            indent=1,
        )
    print(f"{len(catalog)} texts, {len(missing)} without a translation", file=sys.stderr)


if __name__ == "__main__":
    main()

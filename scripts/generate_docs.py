"""Write docs/cli.md and docs/yibu.schema.json from the code; `make docs`. Tests check that they
are current."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from typer.main import get_command

from yibu.cli.main import app
from yibu.config.schema import FileSchema

DOCS = Path(__file__).parents[1] / "docs"
_WIDTH = 96


def cli_reference() -> str:
    """Every verb with the help that it prints itself."""
    parts = ["# Command line\n\nGenerated from the program by `make docs`.\n"]
    for name, text in _helps():
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _helps() -> Iterator[tuple[str, str]]:
    root = get_command(app)
    stack = [("yibu", root, None)]
    while stack:
        name, command, parent = stack.pop(0)
        context = type(command).context_class(
            command, info_name=name.split()[-1], parent=parent, terminal_width=_WIDTH
        )
        yield name, command.get_help(context).rstrip()
        inner = getattr(command, "commands", {})
        stack.extend((f"{name} {key}", value, context) for key, value in inner.items())


def schema() -> str:
    return json.dumps(FileSchema.model_json_schema(), ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_reference(), encoding="utf-8")
    (DOCS / "yibu.schema.json").write_text(schema(), encoding="utf-8")

"""``yibu init`` and ``yibu config``: the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from yibu.cli import output
from yibu.cli.options import FileOption, JsonOption, argument, option
from yibu.cli.written import require_directory
from yibu.errors import UsageError
from yibu.files import write_whole
from yibu.management.context import Context
from yibu.messages import tr


def register(app: typer.Typer) -> None:
    app.command()(init)
    config = typer.Typer(no_args_is_help=True, help=tr("Check and explain the configuration file."))
    config.command("check")(check)
    config.command("show")(show)
    config.command("schema")(schema)
    app.add_typer(config, name="config")


def init(
    path: Annotated[Path, argument("Where to write it.")] = Path("yibu.yaml"),
    to_stdout: Annotated[bool, option("Print it instead.", "--print")] = False,
    force: Annotated[bool, option("Replace a file that is there.")] = False,
) -> None:
    """Write a commented yibu.yaml to begin with."""
    example = tr((Path(__file__).parents[1] / "example.yaml").read_text("utf-8"))
    if to_stdout:
        output.data(example.rstrip("\n"))
        return
    if path.exists() and not force:
        raise UsageError(
            "{path} is there already and was left as it is.",
            path=path,
            hint="Replace it with: yibu init {path} --force",
        )
    require_directory(path)
    write_whole(path, example, 0o644)
    command = "yibu up" if path == Path("yibu.yaml") else f"yibu up -f {path}"
    output.say("Wrote {path}. Start what it names with: {command}", path=path, command=command)


def check(file: FileOption = None) -> None:
    """Say whether `yibu up` could use the file; exit 2 with every fault when it could not."""
    from yibu.management.check import check_config

    context = Context.here()
    path = context.find_file(file)
    config, notes = check_config(context.load(path), context)
    for note in notes:
        output.talk(note)
    names = ", ".join(model.name for model in config.models)
    output.say("{path} can be used. Models: {names}.", path=path, names=names)


def show(
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the gateway's settings as resolved, and where each came from."""
    from yibu.config.settings import GatewaySettings
    from yibu.management.entries import gateway_settings

    context = Context.here()
    config = gateway_settings(context.load(file))
    rows = []
    key_file, keys = config.gateway.api_key_file, len(config.gateway.api_keys)
    values = GatewaySettings(config.gateway).values | {"api_key_file": key_file and str(key_file)}
    del values["api_keys"]
    for name, value in values.items():
        origin = config.origins.get(f"gateway.{name}", "default")
        rows.append({"setting": f"gateway.{name}", "value": value, "from": origin})
    rows.append({"setting": "gateway.api_keys", "value": tr("{keys} keys", keys=keys), "from": "-"})
    output.listing(rows, ("SETTING", "VALUE", "FROM"), as_json=as_json, kind="settings")


def schema() -> None:
    """Print the file's JSON Schema, for editors and for those who want every key."""
    from yibu.config.schema import published

    output.data(json.dumps(published(), ensure_ascii=False, indent=2))

"""``yibu plan`` and ``yibu adopt``: before anything runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yibu.cli import output
from yibu.cli.context import Context, open_store
from yibu.cli.exits import DOES_NOT_FIT, DONE
from yibu.cli.verbs.config import FileOption
from yibu.cli.verbs.models import JsonOption, OfflineOption
from yibu.errors import UsageError

if TYPE_CHECKING:
    from yibu.adopt import Adoption
    from yibu.planner.explain import Row


def register(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(adopt)


def plan(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(help="As for `yibu up`; the whole file when left out.")
    ] = None,
    file: FileOption = None,
    engine: Annotated[str | None, typer.Option(help="llama.cpp, vllm, speech or command.")] = None,
    machine: Annotated[
        str | None,
        typer.Option(help="A machine file, or a built-in one such as rtx3070-8g; this one if not."),
    ] = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> int:
    """Say what models need, what the machine has, and what goes where; exit 3 if one does not fit.

    Only headers are fetched of models that are not on this disk.
    """
    from yibu.cli import selection
    from yibu.cli.door import lift
    from yibu.cli.planning import plan_models
    from yibu.config import file as config_file
    from yibu.node.hardware import probe
    from yibu.planner.explain import explain_machine
    from yibu.planner.machine_file import load_machine

    here = Context.here()
    config = config_file.load(config_file.find(file, here.directory), env=here.env)
    overrides = selection.Overrides(engine=engine, flags=context.obj or ())
    door = lift(models or [], overrides, None, None, here.directory)
    chosen = selection.select(door.models, config, door.overrides, here.directory)
    target = load_machine(machine) if machine else probe(here.env.get("CUDA_VISIBLE_DEVICES"))
    planned = plan_models(chosen, open_store(here, offline=offline), target)
    if as_json:
        output.data_json({"version": 1, "models": [one.data() for one in planned]})
    else:
        _print_rows(explain_machine(target))
        for one in planned:
            output.data(f"\n{one.model.name}")
            _print_rows(one.rows)
    fits = all(one.plan.verdict != "does_not_fit" for one in planned)
    return DONE if fits else DOES_NOT_FIT


def _print_rows(rows: Sequence[Row]) -> None:
    label = max(len(row.label) for row in rows)
    value = max((len(row.value) for row in rows if row.note), default=0)
    for row in rows:
        output.data(f"  {row.label:<{label}}  {row.value:<{value}}  {row.note}".rstrip())


def adopt(
    script: Annotated[
        Path | None, typer.Argument(help="A start script, or a file with one command line.")
    ] = None,
    command: Annotated[
        str | None, typer.Option("-c", "--command", help="The command line itself.")
    ] = None,
    pid: Annotated[int | None, typer.Option(min=1, help="A running process.")] = None,
    key_file: Annotated[Path, typer.Option(help="Where keys that are found go, mode 0600.")] = Path(
        "yibu.keys"
    ),
) -> None:
    """Print the yibu.yaml that does what a start script, a command line or a process does."""
    from yibu.adopt import adopt_script

    if sum(given is not None for given in (script, command, pid)) != 1:
        raise UsageError(
            "One thing to adopt is needed: a script, -c COMMAND, or --pid PID.",
            hint="For instance: yibu adopt start_vllm.sh",
        )
    if pid is not None:
        adoption = _adopt_process(pid)
    elif script is not None:
        if not script.is_file():
            raise UsageError(f"There is no file {script}.")
        adoption = adopt_script(script.read_text(encoding="utf-8"))
    else:
        adoption = adopt_script(command or "")
    for warning in adoption.warnings:
        output.talk(f"! {warning}")
    if adoption.keys:
        _write_keys(key_file, adoption.keys)
        output.talk(f"The keys are in {key_file} (mode 0600); name it with gateway.api_key_file.")
    output.data(adoption.to_yaml().rstrip("\n"))


def _adopt_process(pid: int) -> Adoption:
    import psutil

    from yibu.adopt import adopt_process

    try:
        process = psutil.Process(pid)
        return adopt_process(process.cmdline(), process.environ(), process.cwd())
    except psutil.Error as error:
        raise UsageError(f"The process {pid} cannot be read: {error}.") from error


def _write_keys(path: Path, keys: Sequence[str]) -> None:
    """A new file of mode 0600; one that is there is never overwritten."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UsageError(
            f"{path} is there already and was left as it is.",
            hint="Choose another place with --key-file.",
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("".join(f"{key}\n" for key in keys))

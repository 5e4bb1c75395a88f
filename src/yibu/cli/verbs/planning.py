"""``yibu plan``: before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from yibu.cli import output
from yibu.cli.context import Context, open_resolver, open_store
from yibu.cli.exits import DOES_NOT_FIT, DONE
from yibu.cli.verbs.config import FileOption
from yibu.cli.verbs.models import JsonOption, OfflineOption

if TYPE_CHECKING:
    from yibu.config import ModelConfig
    from yibu.planner.explain import Row
    from yibu.planner.ledger import Promise


MachineOption = Annotated[
    str | None,
    typer.Option(
        help="A machine file, cards such as rtx4090 or 8xh20, or a built-in one such as"
        " laptop-16g; this one if not."
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(help="As for `yibu up`; the whole file when left out.")
    ] = None,
    file: FileOption = None,
    engine: Annotated[str | None, typer.Option(help="llama.cpp, vllm, speech or command.")] = None,
    machine: MachineOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> int:
    """Say what models need, what the machine has, and what goes where; exit 3 if one does not fit, or if that
    cannot be told.

    Only headers are fetched of models that are not on this disk.
    """
    from yibu.config import file as config_file
    from yibu.management.entries import Typed, choose
    from yibu.management.planning import plan_models
    from yibu.node.hardware import probe
    from yibu.planner.explain import explain_machine
    from yibu.planner.ledger import as_if_stopped, less_promised
    from yibu.planner.machine_file import load_machine

    here = Context.here()
    config = config_file.load(config_file.find(file, here.directory), env=here.env)
    typed = Typed(engine=engine, flags=context.obj or ())
    chosen = choose(models or [], config, here.directory, typed)
    notes = chosen.notes
    running: Sequence[Promise] = () if machine else _promises(here)
    target = load_machine(machine) if machine else probe(here.env.get("CUDA_VISIBLE_DEVICES"))
    own, running = _split(running, chosen.models)
    if own:
        names = ", ".join(promise.replica for promise in own)
        notes = (*notes, f"{names} runs: planned as if it were stopped")
    target = as_if_stopped(target, own)
    left = less_promised(target, running)
    if not as_json:
        for note in notes:
            output.talk(note)
    planned = plan_models(
        chosen.models,
        open_store(here, offline=offline, machine=left),
        target,
        open_resolver(here),
        running,
    )
    if as_json:
        models_data = [one.data() for one in planned]
        output.data_json({"version": 1, "notes": list(notes), "models": models_data})
    else:
        _print_rows(explain_machine(target, running))
        for one in planned:
            output.data(f"\n{one.model.name}")
            _print_rows(one.rows)
    fits = all(one.plan.placement is not None for one in planned)
    return DONE if fits else DOES_NOT_FIT


def _split(
    running: Sequence[Promise], chosen: Sequence[ModelConfig]
) -> tuple[list[Promise], list[Promise]]:
    """What the chosen models' own replicas were planned, and what all others were."""
    from yibu.config.names import generation_of

    own = [p for p in running if any(generation_of(p.replica, model.name) for model in chosen)]
    return own, [promise for promise in running if promise not in own]


def _promises(context: Context) -> list[Promise]:
    """What this home's node planned for the engines that it runs; nothing where no node runs."""
    from yibu.errors import NotRunningError
    from yibu.node.client import Client
    from yibu.planner.ledger import Promise

    try:
        found = Client(context.paths).call("reserved")["promises"]
    except NotRunningError:
        return []
    return [
        Promise(one["replica"], tuple(one["gpus"]), one["memory_bytes"],
                frozenset(one["pids"]), one["resident_bytes"], one.get("host_bytes", 0))
        for one in found
    ]  # fmt: skip


def _print_rows(rows: Sequence[Row]) -> None:
    label = max(len(row.label) for row in rows)
    value = max((len(row.value) for row in rows if row.note), default=0)
    for row in rows:
        output.data(f"  {row.label:<{label}}  {row.value:<{value}}  {row.note}".rstrip())

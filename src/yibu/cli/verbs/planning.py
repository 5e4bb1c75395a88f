"""``yibu plan``: before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from yibu.cli import output
from yibu.cli.exits import DOES_NOT_FIT, DONE
from yibu.cli.options import EngineOption, FileOption, JsonOption, OfflineOption, argument
from yibu.management.context import Context
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.planner.explain import Row
    from yibu.planner.ledger import Reservation


MachineOption = Annotated[
    str | None,
    typer.Option(
        help=tr(
            "A machine file, cards such as rtx4090 or 8xh20, or a built-in one such as "
            "laptop-16g; this one if not."
        )
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    context: typer.Context,
    models: Annotated[
        list[str] | None, argument("As for `yibu up`; the whole file when left out.")
    ] = None,
    file: FileOption = None,
    engine: EngineOption = None,
    machine: MachineOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> int:
    """Say what models need, what the machine has, and what goes where; exit 3 if one does not fit, or if that
    cannot be told.

    Only headers are fetched of models that are not on this disk.
    """
    from yibu.management.entries import TypedOptions, choose
    from yibu.management.planning import plan_beside

    here = Context.here()
    config = here.load(file)
    typed = TypedOptions(engine=engine, flags=context.obj or ())
    chosen = choose(models or [], config, here.directory, typed)
    if not as_json:
        for note in chosen.notes:
            output.talk(note)
    running: Sequence[Reservation] = () if machine else _reservations(here)
    about, notes, planned = plan_beside(chosen.models, here, running, machine, offline=offline)
    if as_json:
        models_data = [one.data() for one in planned]
        told = [*chosen.notes, *notes]
        output.data_json({"version": 1, "notes": told, "models": models_data})
    else:
        for note in notes:
            output.talk(note)
        _print_rows(about)
        for one in planned:
            output.data(f"\n{one.model.name}")
            _print_rows(one.rows)
    fits = all(one.plan.placement is not None for one in planned)
    return DONE if fits else DOES_NOT_FIT


def _reservations(context: Context) -> list[Reservation]:
    """Reservations of this home's running node; none without a node."""
    from yibu.config.wire import read
    from yibu.errors import NotRunningError
    from yibu.planner.ledger import Reservation

    try:
        found = context.client.call("reserved")["reservations"]
    except NotRunningError:
        return []
    return [read(Reservation, one) for one in found]


def _print_rows(rows: Sequence[Row]) -> None:
    label = max(output.cell_width(row.label) for row in rows)
    value = max((output.cell_width(row.value) for row in rows if row.note), default=0)
    for row in rows:
        cells = output.padded(row.label, label), output.padded(row.value, value), row.note
        output.data(f"  {'  '.join(cells)}".rstrip())

"""``yibu top``: to see what goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from yibu.cli import output
from yibu.cli.context import Context
from yibu.cli.verbs.models import JsonOption


def register(app: typer.Typer) -> None:
    app.command()(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, and leave.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.2, max=60, help="Seconds between two readings.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Watch models, requests, tokens, memory and GPUs; q leaves."""
    from yibu.cli.top.sample import Sampler, measure
    from yibu.cli.top.screen import print_once, watch

    context = Context.here()
    if as_json:
        output.data_json(measure(context, interval).json())
    elif once:
        print_once(measure(context, interval))
    else:
        watch(Sampler(context), interval)

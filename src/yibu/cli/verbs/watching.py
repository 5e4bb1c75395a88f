"""``yibu top`` and ``yibu support``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from yibu.cli import output
from yibu.cli.options import FileOption, JsonOption, OfflineOption, option
from yibu.management.context import Context


def register(app: typer.Typer) -> None:
    app.command()(top)
    app.command()(support)


def top(
    once: Annotated[bool, option("Print it once, and leave.", "--once")] = False,
    interval: Annotated[float, option("Seconds between two readings.", min=0.2, max=60)] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Watch models, requests, tokens, memory and GPUs; q leaves."""
    from yibu.cli.top import NodeSampler, measure, print_once, watch

    context = Context.here()
    if as_json:
        output.data_json(measure(context, interval).json())
    elif once:
        print_once(measure(context, interval))
    else:
        watch(NodeSampler(context), interval)


def support(
    target: Annotated[
        Path | None, option("The archive; ./yibu-support-TIME.tar.gz if not.", "-o", "--output")
    ] = None,
    file: FileOption = None,
    lines: Annotated[
        int, option("Lines of each log; 0 takes none.", "-n", "--lines", min=0)
    ] = 2000,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Collect what a bug report needs into one archive, without secrets; the node need not run."""
    from yibu.cli.support.archive import check_target, manifest, summary, write
    from yibu.cli.support.contents import collect

    context = Context.here()
    if offline:
        context = context.with_env(YIBU_OFFLINE="1")
    path = target or context.directory / f"yibu-support-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    check_target(path)
    contents = collect(context, file, lines=lines)
    write(path, contents)
    if as_json:
        output.data_json(summary(path, contents))
        return
    output.talk(manifest(contents))
    output.data(str(path))

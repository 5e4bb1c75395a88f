"""``yibu search`` and ``yibu show``: the catalogue, and one model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from yibu.cli import output
from yibu.cli.options import JsonOption, argument
from yibu.cli.words import word
from yibu.errors import NotRunningError, UsageError
from yibu.management.context import Context, open_store
from yibu.management.sources import stored_source
from yibu.messages import tr


def register(app: typer.Typer) -> None:
    app.command()(search)
    app.command("catalogue", hidden=True, help=tr("The same as search."))(search)
    app.command("catalog", hidden=True, help=tr("The same as search."))(search)
    app.command()(show)


def search(
    word: Annotated[
        str | None, argument("Part of a name, a kind or a description; all if not.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that yibu knows by name, with their sizes, and which fit on this machine."""
    from yibu.management import catalogue

    rows = catalogue.rows(word, Context.here().machine())
    if not rows:
        raise UsageError(
            "The catalogue has nothing like {word!r}.",
            word=word,
            hint="See all of it with: yibu search. Any other model goes by ORG/NAME: yibu up "
            "ORG/NAME",
        )
    for row in rows:
        if row["size"] is not None and not as_json:
            row["size"] = output.size(row["size"])
    columns = ("NAME", "KIND", "SIZE", "FITS", "LICENSE", "ABOUT")
    output.listing(rows, columns, as_json=as_json, kind="models")
    if not as_json:
        output.say(
            "{column} goes by the size of the weights; `yibu plan NAME` counts all of it.",
            column=tr("FITS"),
        )


def show(
    model: Annotated[str, argument("A running model, or one on this disk.")],
    as_json: JsonOption = False,
) -> None:
    """Say what one model is: its source and files, and how it runs."""
    from yibu.planner.facts import read_facts

    context = Context.here()
    try:
        running = context.client.call("ps")["models"]
    except NotRunningError:
        running = []
    up = next((one for one in running if one["name"] == model), None)
    shown: dict[str, Any] = {"model": model}
    store = open_store(context)
    named = model if up is None else up["source"]  # none where a command brings its own weights
    source = stored_source(named, store, context) if named else None
    if source is not None and (local := store.find(source)) is not None:
        facts = read_facts(local.path)
        shown |= {
            "source": str(source),
            "path": str(local.path),
            "size": local.size if as_json else output.size(local.size),
            "format": facts.format,
            "architecture": facts.architecture or None,
            "context": facts.max_context,
        }
    elif up is None:
        raise UsageError(
            "{model} is neither up nor on this disk.",
            model=model,
            source=source,
            hint="Fetch it with: yibu pull {source}",
        )
    if up is not None:
        ports = [replica["port"] for replica in up["replicas"]]
        shown |= {key: up[key] for key in ("engine", "state", "cause") if up[key]}
        shown |= {"replicas": len(up["replicas"]), "ports": ports}
    if as_json:
        output.data_json({"version": 1, **shown})
        return
    shown["state"] = word(shown["state"]) if "state" in shown else None
    output.fields({key: value for key, value in shown.items() if value is not None})

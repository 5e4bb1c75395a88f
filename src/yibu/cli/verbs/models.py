"""``yibu pull``, ``ls``, ``rm``, ``verify``, ``gc``: the store of models on this disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from yibu.cli import output
from yibu.cli.exits import DONE, VERIFICATION_FAILED
from yibu.cli.options import JsonOption, OfflineOption, argument, option
from yibu.errors import UsageError
from yibu.management.context import Context, open_store
from yibu.management.sources import path_note, resolve_source, stored_source
from yibu.messages import tr

_NO_MODELS = tr("There are no models on this disk yet. Fetch one: yibu pull smollm2")


def register(app: typer.Typer) -> None:
    app.command()(pull)
    app.command("ls")(ls)
    app.command("list", hidden=True, help=tr("The same as ls."))(ls)
    app.command("rm")(rm)
    app.command()(verify)
    app.command()(gc)


def pull(
    source: Annotated[
        str | None,
        argument("A source, ORG/NAME, or a name from the catalogue.", show_default=False),
    ] = None,
    model_id: Annotated[
        str | None, option("The same as SOURCE.", "--model_id", "--model-id")
    ] = None,
    revision: Annotated[str | None, option("A branch, tag or commit.")] = None,
    cache_dir: Annotated[
        Path | None, option("Make the files appear at DIR/ORG/NAME.", "--cache-dir", "--cache_dir")
    ] = None,
    offline: OfflineOption = False,
) -> None:
    """Download a model, verify it, and print its directory."""
    from yibu.cli.progress import pulling

    context = Context.here()
    wanted = source or model_id
    if wanted is None:
        raise UsageError(
            "No model was named.",
            hint="Give its id, for instance: yibu pull Qwen/Qwen3-0.6B (or --model_id "
            "Qwen/Qwen3-0.6B)",
        )
    store = open_store(context, offline=offline)
    if note := path_note(wanted, context.directory):
        output.talk(note)
    with pulling(wanted) as progress:
        model = store.pull(
            resolve_source(wanted, context.directory),
            revision=revision,
            cache_dir=cache_dir,
            progress=progress,
        )
    for note in model.notes:
        output.talk(note)
    output.data(str(model.path))


def ls(as_json: JsonOption = False) -> None:
    """List the models on this disk."""
    rows = []
    for record in open_store(Context.here()).list():
        changed, unverified, model = record.changed(), record.unverified, record.model
        rows.append(
            {
                "source": str(record.source),
                "size": model.size if as_json else output.size(model.size),
                "verified": not (changed or unverified)
                if as_json
                else _verified(changed, unverified),
                "unverified": unverified,
                "changed": changed,
                "path": str(model.path),
                "superseded": record.superseded,
            }
        )
    columns = ("SOURCE", "SIZE", "VERIFIED", "PATH")
    output.listing(rows, columns, as_json=as_json, kind="models", none=_NO_MODELS)


_COMPARED = {
    "format": tr("format and length only"),
    "size": tr("length only"),
    "none": tr("not compared"),
}


def _verified(changed: list[str], unverified: Mapping[str, str]) -> str:
    """Whether every file is here and had a hash to compare it with, or else the weakest comparison."""
    if changed:
        files = ", ".join(changed[:2]) + (" …" if len(changed) > 2 else "")
        return tr("gone or changed: {files}", files=files)
    least = next(
        (proof for proof in ("none", "size", "format") if proof in unverified.values()), None
    )
    return "yes" if least is None else tr("unverified ({compared})", compared=_COMPARED[least])


def rm(source: Annotated[str, argument("The model's name or source.")]) -> None:
    """Remove a model from this disk."""
    context = Context.here()
    store = open_store(context)
    freed = store.remove(stored_source(source, store, context))
    output.say("Removed {source}, {freed_bytes}.", source=source, freed_bytes=output.size(freed))


def verify(
    source: Annotated[str | None, argument("One model; all when left out.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Read every byte again and compare it with what was recorded; exit 4 on a difference."""
    from yibu.cli.progress import pulling

    context = Context.here()
    store = open_store(context)
    wanted = stored_source(source, store, context) if source else None
    with pulling(source or tr("all models")) as progress:
        results = store.verify(wanted, progress=progress)
    rows = [
        {
            "source": str(result.source),
            "result": "damaged" if not result.ok else "unverified" if result.unverified else "ok",
            "faults": list(result.problems),
            "unverified": dict(result.unverified),
        }
        for result in results
    ]
    columns = ("SOURCE", "RESULT", "FAULTS")
    output.listing(rows, columns, as_json=as_json, kind="models", none=_NO_MODELS)
    for result in results:
        if result.ok and result.unverified:
            output.say(
                "{result_source} is as it came, but its hub gave no hash of "
                "{unverified}: {unverified2}.",
                result_source=result.source,
                unverified=", ".join(list(result.unverified)[:4]),
                unverified2=_verified([], result.unverified),
            )
    damaged = [row["source"] for row in rows if row["result"] == "damaged"]
    for name in damaged:
        output.say("{name} is damaged. Fetch it again with: yibu pull {name}", name=name)
    return VERIFICATION_FAILED if damaged else DONE


def gc(
    dry_run: Annotated[bool, option("Only say what would go.", "--dry-run")] = False,
) -> None:
    """Remove what no model needs: broken-off downloads, files without a record, earlier commits."""
    garbage = open_store(Context.here()).gc(dry_run=dry_run)
    for item in garbage:
        output.data(f"{item.path}  {output.size(item.size)}  {item.reason}")
    freed = output.size(sum(item.size for item in garbage))
    output.talk(
        tr("{freed} would be freed.", freed=freed)
        if dry_run
        else tr("{freed} were freed.", freed=freed)
    )

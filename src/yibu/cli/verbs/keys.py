"""``yibu key`` and ``yibu usage``: keys in a database that a running node follows, and what they used."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from yibu.accounts.types import HEAVIEST
from yibu.cli import output
from yibu.cli.options import JsonOption, argument, option
from yibu.cli.words import word
from yibu.errors import UsageError
from yibu.management.context import Context
from yibu.messages import tr

NameArgument = Annotated[str, argument("The key's name, as `yibu key ls` shows it.")]

_WEIGHT = option("Its share where requests wait: 2 gets twice as much as 1.", min=1, max=HEAVIEST)


def register(app: typer.Typer) -> None:
    keys = typer.Typer(
        no_args_is_help=True, help=tr("API keys: who may call the gateway, how much.")
    )
    for verb in (add, show, rm, rotate):
        keys.command()(verb)
    keys.command("set")(set_)
    keys.command("ls")(ls)
    keys.command("list", hidden=True, help=tr("The same as ls."))(ls)
    app.add_typer(keys, name="key")
    app.command()(usage)


def add(
    name: Annotated[str, argument("What logs, metrics and usage call it.")],
    models: Annotated[str | None, option("Models that it may use, A,B; all when left out.")] = None,
    rpm: Annotated[int | None, option("Requests a minute.", min=1)] = None,
    tpm: Annotated[int | None, option("Tokens a minute.", min=1)] = None,
    concurrency: Annotated[int | None, option("Requests at once.", min=1)] = None,
    priority: Annotated[
        str, option("interactive, or batch for work that may wait.")
    ] = "interactive",
    weight: Annotated[int, _WEIGHT] = 1,
    budget: Annotated[str | None, option("Tokens a day or month: 200000/day, 5M/month.")] = None,
    expires: Annotated[
        str | None, option("How long it works: 12h, 30d; for ever when left out.")
    ] = None,
    admin: Annotated[bool, option("It may see the usage of all keys.", "--admin")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this one time. A running node takes it at once."""
    from yibu.accounts import types
    from yibu.cli.accounts import change
    from yibu.config.types import Limits

    account = types.Account(
        types.check_name(name),
        created=time.time(),
        admin=admin,
        priority=types.parse_priority(priority),
        weight=weight,
        models=None if models is None else types.parse_models(models),
        limits=Limits(rpm, tpm, concurrency),
    )
    account = types.changed(account, {"budget": budget, "expires": expires})
    with change(Context.here()) as store:
        key = store.add(account)
        added = store.get(name)
    _print_key(key, added, tr("This is the key {name}; it is not shown again.", name=name), as_json)


def set_(
    name: NameArgument,
    models: Annotated[str | None, option("A,B, or all.")] = None,
    rpm: Annotated[int | None, option("Requests a minute; 0: no limit.", min=0)] = None,
    tpm: Annotated[int | None, option("Tokens a minute; 0: no limit.", min=0)] = None,
    concurrency: Annotated[int | None, option("Requests at once; 0: no limit.", min=0)] = None,
    priority: Annotated[str | None, option("interactive or batch.")] = None,
    weight: Annotated[int | None, _WEIGHT] = None,
    budget: Annotated[str | None, option("200000/day, 5M/month, or none.")] = None,
    expires: Annotated[str | None, option("From now on: 12h, 30d, or never.")] = None,
    admin: Annotated[bool | None, option("Whether it sees all keys' usage.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change a key's settings; those that are left out stay. A running node takes them at once."""
    from yibu.accounts import types
    from yibu.cli.accounts import change

    limits = {"rpm": rpm, "tpm": tpm, "concurrency": concurrency}
    given: dict[str, Any] = {n: value or None for n, value in limits.items() if value is not None}
    if models is not None:
        given["models"] = None if models == "all" else types.parse_models(models)
    if priority is not None:
        given["priority"] = types.parse_priority(priority)
    if weight is not None:
        given["weight"] = weight
    if budget is not None:
        given["budget"] = None if budget == "none" else budget
    if expires is not None:
        given["expires"] = None if expires == "never" else expires
    if admin is not None:
        given["admin"] = admin
    if not given:
        raise UsageError(
            "No setting of the key {name} was given",
            name=name,
            hint="What can be changed: yibu key set --help",
        )
    with change(Context.here()) as store:
        changed = store.change(name, lambda account: types.changed(account, given))
    if as_json:
        output.data_json({"version": 1, **changed.row()})
    output.say("Changed the key {name}.", name=name)


def ls(as_json: JsonOption = False) -> None:
    """List the keys, without their secrets."""
    from yibu.cli.accounts import read

    with read(Context.here()) as store:
        rows = [account.row() for account in store.accounts()]
    if not as_json:
        rows = [_cells(one) for one in rows]
    columns = ("NAME", "PREFIX", "MODELS", "LIMITS", "BUDGET", "EXPIRES", "STATE")
    none = tr("There are no keys yet. Add one: yibu key add NAME")
    output.listing(rows, columns, as_json=as_json, kind="keys", none=none)


def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show one key's settings."""
    from yibu.cli.accounts import read

    with read(Context.here()) as store:
        shown = store.get(name).row()
    if as_json:
        output.data_json({"version": 1, **shown})
        return
    cells = _cells(shown) | {"admin": word("yes" if shown["admin"] else "no")}
    cells |= {label: word(shown[label]) for label in ("state", "priority")}
    ends = shown["replaced"]
    cells["prefix"] = [f"{prefix}…" for prefix in shown["prefixes"] if prefix not in ends]
    cells["prefix"] += [tr("{prefix}… until {end}", prefix=p, end=end) for p, end in ends.items()]
    labels = ("name", "state", "prefix", "created", "expires", "models", "limits", "budget",
              "priority", "weight", "admin")  # fmt: skip
    output.fields({label: cells[label] or "-" for label in labels})


def rm(name: NameArgument, as_json: JsonOption = False) -> None:
    """Remove a key; a running node refuses it at once. What it used stays in `yibu usage`."""
    from yibu.cli.accounts import change

    with change(Context.here()) as store:
        removed = store.remove(name)
        last = not store.accounts()
    if as_json:
        output.data_json({"version": 1, **removed.row()})
    output.say("Removed the key {name}.", name=name)
    if last:
        output.say(
            "It was the last one. A running node still asks for keys; the next one will "
            "not, unless the configuration has some."
        )


def rotate(
    name: NameArgument,
    grace: Annotated[
        str | None, option("How long the old key goes on working: 1h; not at all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a key by a new one with the same name and limits, and print it, this one time."""
    from yibu.accounts.types import parse_duration
    from yibu.cli.accounts import change

    seconds = 0 if grace is None else parse_duration(grace)
    with change(Context.here()) as store:
        key = store.rotate(name, seconds)
        rotated = store.get(name)
    until = tr("for another {grace}", grace=grace) if grace else tr("no longer")
    text = tr(
        "This is the new key {name}; it is not shown again. The old one works {until}.",
        name=name,
        until=until,
    )
    _print_key(key, rotated, text, as_json)


def usage(
    by: Annotated[str, option("key, model, day or hour.")] = "key",
    since: Annotated[str, option("How far back: 12h, 7d, 4w.")] = "7d",
    key: Annotated[str | None, option("Of this key alone.")] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, option("Print CSV.", "--csv")] = False,
) -> None:
    """Show what was asked of the models: requests, tokens, audio, by key, model, day or hour (UTC)."""
    from yibu.cli.accounts import print_usage

    print_usage(Context.here(), by, since, key, as_json=as_json, as_csv=as_csv)


def _print_key(key: str, account: Any, text: str, as_json: bool) -> None:
    if as_json:
        output.data_json({"version": 1, **account.row(), "key": key})
        return
    output.data(key)
    output.flush()
    output.talk(text)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a table shows it."""
    limits = [f"{row[name]} {name}" for name in ("rpm", "tpm") if row[name] is not None]
    if row["concurrency"] is not None:
        limits.append(tr("{concurrency} at once", concurrency=row["concurrency"]))
    return {**row, "prefix": [f"{prefix}…" for prefix in row["prefixes"]],
            "limits": ", ".join(limits) or None,
            "models": tr("all") if row["models"] is None else row["models"]}  # fmt: skip

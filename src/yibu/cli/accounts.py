"""The command line's access to the database of keys."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

from yibu.accounts import usage
from yibu.accounts.database import translated
from yibu.accounts.store import FILE, AccountStore
from yibu.accounts.types import parse_duration, stamp
from yibu.cli import output
from yibu.errors import NotRunningError, UsageError, YibuError
from yibu.management.context import Context
from yibu.messages import tr

_COLUMNS = ("requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens",
            "total_tokens", "audio_seconds", "compute_seconds", "estimated")  # fmt: skip


@contextmanager
def read(context: Context) -> Iterator[AccountStore]:
    """The store of this home. Raises AccountsError."""
    context.paths.make()
    with AccountStore.open(context.paths.state / FILE) as store:
        yield store


@contextmanager
def change(context: Context) -> Iterator[AccountStore]:
    """The same; on leaving, a running node has read the change."""
    with read(context) as store:
        yield store
    sync(context)


def sync(context: Context) -> None:
    """Let a running node write what it has counted, and read what has changed; it does both twice a
    second by itself, so that a node that cannot does not keep a key from being shown."""
    try:
        context.client.call("accounts")
    except NotRunningError:
        return
    except YibuError as error:
        output.say("yibu: the running node cannot use the database now: {error}", error=error)


def unwritten_text(unwritten: Mapping[str, Any]) -> str:
    """The consequences of a database that the node cannot use."""
    if unwritten.get("unreadable"):
        return tr("Keys cannot be checked, requests get 503: {error}", error=unwritten["error"])
    return tr(
        "The usage of the latest requests ({count}) is in memory only: {error}",
        count=unwritten["requests"],
        error=unwritten["error"],
    )


def print_usage(
    context: Context, by: str, since: str, key: str | None, *, as_json: bool, as_csv: bool
) -> None:
    """Raises UsageError, AccountsError."""
    if as_json and as_csv:
        raise UsageError("--json and --csv are two formats", hint="Leave one of them out")
    group = next((known for known in get_args(usage.By) if known == by), None)
    if group is None:
        raise UsageError(
            "--by {by!r} is not known; expected {known}", by=by, known=", ".join(get_args(usage.By))
        )
    start = time.time() - parse_duration(since)
    with read(context) as store, translated(store.path):
        sync(context)
        rows = usage.read(store.connection, group, start, key)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([group, *_COLUMNS])
        writer.writerows([row[group], *(row[name] for name in _COLUMNS)] for row in rows)
        return
    if as_json:
        known = {"by": group, "since": stamp(start), "key": key}
        output.data_json({"version": 1, **known, "usage": rows})
        return
    names = (group, *_COLUMNS)
    columns = ("REQUESTS", "ERRORS", "PROMPT", "CACHED", "COMPLETION", "TOTAL", "AUDIO S",
               "COMPUTE S", "ESTIMATED")  # fmt: skip
    headings = {"key": tr("KEY"), "model": tr("MODEL"), "day": tr("DAY"), "hour": tr("HOUR")}
    output.table([[f"{row[name]:g}" if isinstance(row[name], float) else str(row[name])
                   for name in names] for row in rows], (headings[group], *columns))  # fmt: skip
    if not rows:
        output.say("Nothing was asked of the models in that time.")
    if estimated := sum(row["estimated"] for row in rows):
        output.say(
            "Of {estimated} requests the engine gave no count: their tokens are estimates.",
            estimated=estimated,
        )

"""``yibu diff``, ``apply``, ``rollback``: from what a node serves to what a file says."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yibu.cli import output
from yibu.cli.exits import DONE, FAILED
from yibu.cli.options import FileOption, JsonOption, option
from yibu.errors import NotRunningError, UsageError
from yibu.management.context import Context
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.management.difference import Difference
    from yibu.management.entries import Chosen

YesOption = Annotated[bool, option("Do not ask.", "-y", "--yes")]


def register(app: typer.Typer) -> None:
    for verb in (diff, apply, rollback):
        app.command()(verb)


def diff(
    file: FileOption = None,
    as_json: JsonOption = False,
    exit_code: Annotated[
        bool, option("Exit 1 where something would change.", "--exit-code")
    ] = False,
) -> int:
    """Show what `yibu apply` would change."""
    here = Context.here()
    chosen = _chosen(here, file)
    found = _difference(here, chosen)
    if as_json:
        output.data_json(found.plain())
    else:
        for line in found.lines():
            output.data(line)
        if not found:
            output.say("Nothing would change.")
    return FAILED if exit_code and found else DONE


def apply(file: FileOption = None, yes: YesOption = False) -> int:
    """Serve what the file has: start what is new, replace what has changed, stop what is gone.

    A changed model is started beside the old one where memory allows, and takes over when it has
    answered; where it fails, the old one serves on. Models that were not started from this file stay.
    Settings of the gateway hold at once; with another host or port it listens there.
    """
    from yibu.cli.launch import NodeLaunch
    from yibu.cli.session import NodeSession, watch
    from yibu.management.entries import no_model

    here = Context.here()
    chosen = _chosen(here, file)
    try:
        found = _difference(here, chosen)
    except NotRunningError:
        if not chosen.models:
            raise no_model(chosen.config) from None
        with NodeLaunch(here) as node:
            session = NodeSession(here, chosen.config, node, whole_file=True)
            return session.up_detached(chosen.models)
    if _agreed(found, yes=yes):
        watch(here, "apply", **found.request)
        output.say("Done. Back to what was served before: yibu rollback")
    return DONE


def rollback(yes: YesOption = False) -> int:
    """Serve what was served before the last `yibu apply`."""
    from yibu.cli.session import watch
    from yibu.management.difference import before_last_apply

    here = Context.here()
    told = here.client.call("configs")
    found = before_last_apply(told)
    if found is None:
        raise UsageError(
            "There is nothing to go back to: nothing was applied here.", hint="yibu apply -f FILE"
        )
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told["previous"]["until"]))
    output.say("What was served until {when}:", when=when)
    if _agreed(found, yes=yes):
        watch(here, "apply", **found.request, rollback=told["previous"]["until"])
        output.say("Done.")
    return DONE


def _agreed(found: Difference, *, yes: bool) -> bool:
    """Show the changes and ask for consent."""
    if not found:
        output.say("Nothing is to be changed.")
        return False
    for line in found.lines():
        output.talk(line)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("This asks before it changes anything.", hint="Say yes beforehand: --yes")
    return typer.confirm(tr("Do it?"), err=True)


def _chosen(here: Context, file: Any) -> Chosen:
    """The file's models, as `yibu up` reads them."""
    from yibu.hub.settings import is_offline
    from yibu.management.changes import as_known
    from yibu.management.check import check_options
    from yibu.management.entries import TypedOptions, choose

    config = here.load(as_known(file, here))
    typed = TypedOptions(offline=is_offline(here.env))
    chosen = choose([], config, here.directory, typed, may_be_empty=True)
    check_options(chosen.models, here)
    for note in chosen.notes:
        output.talk(note)
    return chosen


def _difference(here: Context, chosen: Chosen) -> Difference:
    """Raises NotRunningError."""
    from yibu.management.changes import changes_of_file

    return changes_of_file(chosen, here.client.call("configs"), here)

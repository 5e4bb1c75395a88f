"""``yibu up``, ``down``, ``ps``, ``logs``, ``restart``, ``test``, ``demo``, ``node``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import typer

from yibu.cli import output
from yibu.cli.exits import DONE, FAILED
from yibu.cli.options import (
    EngineOption,
    FileOption,
    JsonOption,
    OfflineOption,
    PortOption,
    argument,
    option,
)
from yibu.cli.words import word
from yibu.errors import NotRunningError, NotUpError, UsageError
from yibu.management.context import Context
from yibu.messages import ENGLISH, tr

ModelArgument = Annotated[str, argument("A model's name, as `yibu ps` shows it.")]
ModelsArgument = Annotated[list[str] | None, argument("Models' names; all when none is given.")]


def register(app: typer.Typer) -> None:
    for verb in (up, down, ps, logs, load, unload, scale, restart, test, demo):
        app.command()(verb)
    for name, verb in (("serve", up), ("stop", down), ("status", ps)):
        app.command(name, hidden=True, help=tr("The same as {name}.", name=verb.__name__))(verb)
    node = typer.Typer(no_args_is_help=True, help=tr("The node's own process."))
    node.command()(upgrade)
    app.add_typer(node, name="node")


def up(
    context: typer.Context,
    models: Annotated[
        list[str] | None, argument("Names in yibu.yaml, catalogue entries, or sources.")
    ] = None,
    file: FileOption = None,
    detach: Annotated[bool, option("Return when everything is ready.", "-d", "--detach")] = False,
    name: Annotated[str | None, option("What clients ask for.")] = None,
    engine: EngineOption = None,
    host: Annotated[str | None, option("The gateway's address.")] = None,
    port: PortOption = None,
    offline: OfflineOption = False,
    force: Annotated[bool, option("Start what does not fit by the plan too.", "--force")] = False,
) -> int:
    """Download, launch and serve models. Flags for the engine follow after `--`."""
    from yibu.cli.launch import NodeLaunch

    here = Context.here()
    if offline:
        here = here.with_env(YIBU_OFFLINE="1")
    with NodeLaunch(here) as node:
        from yibu.cli.session import NodeSession
        from yibu.gateway.monitoring.tracing import lacking
        from yibu.hub.settings import is_offline
        from yibu.management.changes import as_known
        from yibu.management.check import check_options
        from yibu.management.entries import TypedOptions, choose

        # A node that runs already has an environment of its own: the model itself says "offline".
        offline = is_offline(here.env)
        typed = TypedOptions(name, engine, context.obj or (), host, port, force, offline)
        config = here.load(as_known(file, here))
        chosen = choose(models or [], config, here.directory, typed)
        check_options(chosen.models, here)
        traces = lacking(here.env)
        for note in (*chosen.notes, *([traces] if traces else [])):
            output.talk(note)
        session = NodeSession(here, chosen.config, node, whole_file=chosen.from_file)
        return session.up_detached(chosen.models) if detach else session.up_attached(chosen.models)


def down(models: ModelsArgument = None) -> None:
    """Stop models, or everything. Requests in flight get time to end."""
    from yibu.cli.session import end_left, shut_down, watch

    here = Context.here()
    try:
        if models:
            watch(here, "down", models=models)
        else:
            shut_down(here)
            output.say("Everything is stopped.")
    except NotUpError:
        raise
    except NotRunningError:
        # A node that was killed leaves its engines.
        if not (ended := end_left(here, models or ())):
            raise
        output.say(
            "No node ran. Ended what a killed one had left; processes: {ended}.", ended=ended
        )


def ps(as_json: JsonOption = False) -> None:
    """Show what runs."""
    status = Context.here().client.call("ps")
    if as_json:
        output.data_json(status)
        return
    rows = [
        [
            model["name"],
            _state(model),
            model["engine"] or "-",
            str(len(model["replicas"])),
            output.size(sum(replica["rss_bytes"] or 0 for replica in model["replicas"])),
            str(sum(replica["restarts"] for replica in model["replicas"])),
            model["source"] or "-",
        ]
        for model in status["models"]
    ]
    output.table(rows, ("MODEL", "STATE", "ENGINE", "REPLICAS", "MEMORY", "RESTARTS", "SOURCE"))
    for model in status["models"]:
        if model["cause"]:  # a sentence, which no column could hold
            output.data("\n" + tr("{name}: {text}", name=model["name"], text=model["cause"]))
            if model["hint"]:
                output.data(f"  → {model['hint']}")
    if not status["models"]:
        output.say("No model is up.")
    output.say("{url}, node process {pid}", url=status["gateway"]["url"], pid=status["node"]["pid"])
    if unwritten := status["gateway"].get("unwritten"):
        from yibu.cli.accounts import unwritten_text

        output.talk(f"! {unwritten_text(unwritten)}")
    if not status["node"].get("holder"):
        output.say(
            "! Its holder is gone: nothing starts it again if it is killed. Give it another: "
            "yibu node upgrade"
        )


def _state(model: dict[str, Any]) -> str:
    phase = model.get("phase")
    state = word(model["state"])
    return tr("{state} ({phase})", state=state, phase=word(phase)) if phase else state


def logs(
    models: Annotated[
        list[str] | None, argument("Models' names, and `node`; all logs when none is given.")
    ] = None,
    follow: Annotated[bool, option("Go on as it grows.", "-f", "--follow")] = False,
    lines: Annotated[
        int | None,
        option(
            "How many of the last: 100, and all with --since.",
            "-n",
            "--lines",
            min=0,
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None, option("Not older than 30s, 10m, 2h, 1d, or a time (ISO 8601).")
    ] = None,
    level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, option("This level and worse.")
    ] = None,
    grep: Annotated[str | None, option("Lines that match a regular expression.")] = None,
    as_json: Annotated[bool, option("A JSON object a line.", "--json")] = False,
) -> None:
    """Print logs: of models, of the node (`yibu logs node`), or of all together.

    Lines of several logs stand in the order of their times, each behind its log's name.
    """
    from yibu.cli.logs import show, wanted

    chosen = wanted(since, level, grep)
    show(Context.here(), models or (), chosen, follow=follow, lines=lines, as_json=as_json)


NamedArgument = Annotated[list[str], argument("Models' names, as `yibu ps` shows them.")]


def load(models: NamedArgument, as_json: JsonOption = False) -> None:
    """Load models that are listed but not in memory; returns when they are ready."""
    _have_done("load", models, as_json=as_json)


def unload(models: NamedArgument, as_json: JsonOption = False) -> None:
    """Take models out of memory. They stay listed: `yibu load`, or a request to one that is kept
    `idle`, loads them again."""
    _have_done("unload", models, as_json=as_json)


def scale(
    model: ModelArgument,
    replicas: Annotated[int, argument("How many replicas.", min=1, max=64)],
    as_json: JsonOption = False,
) -> None:
    """Run so many replicas of a model from now on, whatever the file says, until `yibu apply` or
    `yibu up` with the file. Replicas that are too many answer first what they have."""
    _have_done("scale", [model], as_json=as_json, replicas=replicas)


def _have_done(operation: str, names: list[str], *, as_json: bool, **fields: Any) -> None:
    """Run an operation of the node, then print the models' states."""
    from yibu.cli.session import watch

    here = Context.here()
    watch(here, operation, models=names, **fields)
    models = [model for model in here.client.call("ps")["models"] if model["name"] in names]
    if as_json:
        output.data_json({"version": 1, "models": models})
        return
    for model in models:
        ready = sum(replica["state"] == "ready" for replica in model["replicas"])
        count = len(model["replicas"])
        state = word(model["state"])
        output.talk(
            tr(
                "{model} is {state}, {ready} of {count} replicas ready.",
                model=model["name"],
                state=state,
                ready=ready,
                count=count,
            )
            if ready
            else tr("{model} is {state}.", model=model["name"], state=state)
        )


def restart(model: ModelArgument) -> None:
    """Stop a model and start it again; returns when it is ready."""
    from yibu.cli.session import watch

    watch(Context.here(), "restart", models=[model])


def test(
    models: ModelsArgument = None,
    as_json: JsonOption = False,
    max_tokens: Annotated[int, option("Tokens of each answer at most.", min=1)] = 60,
) -> int:
    """Try what runs with real requests, a line a check; exit 1 when one fails."""
    from yibu.cli.connect import access
    from yibu.cli.smoke import Check, run_checks

    here = Context.here()
    running = {model["name"]: model for model in here.client.call("ps")["models"]}
    if not running:
        raise NotRunningError("No model is up.", hint="Start one with: yibu up MODEL")
    for model in models or []:
        if model not in running:
            raise UsageError(
                "{model} is not up; these are: {running}.", model=model, running=", ".join(running)
            )
    reach = access(here)
    api = replace(reach.api, language=ENGLISH) if as_json else reach.api
    checks: list[Check] = []
    for model in models or running:
        able = reach.capabilities.get(model, ())
        for check in run_checks(api, running[model], able, max_tokens=max_tokens):
            checks.append(check)
            if not as_json:
                output.data(check.line())
                output.flush()
    if as_json:
        output.data_json({"version": 1, "checks": [check.row() for check in checks]})
    return DONE if all(check.passed for check in checks) else FAILED


def demo(
    once: Annotated[bool, option("Check, stop everything, exit.", "--once")] = False,
    port: PortOption = None,
) -> int:
    """Deploy a model that comes from PyPI, talk to it, and show how to go on."""
    from yibu.cli.demo import run_demo

    return run_demo(Context.here(), once=once, port=port)


def upgrade(
    as_json: JsonOption = False,
) -> None:
    """Run the node with the yibu that is installed now; models go on, no connection is refused."""
    done = Context.here().client.call("upgrade", timeout=None)
    if as_json:
        output.data_json({"version": 1, **done})
        return
    before, now = done["before"], done["now"]
    output.say(
        "The node is yibu {version} (process {pid}), in the place of {version2} (process "
        "{pid2}), which still ends what it had begun to answer. Its engines go on.",
        version=now["version"],
        pid=now["pid"],
        version2=before["version"],
        pid2=before["pid"],
    )

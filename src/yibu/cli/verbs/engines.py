"""``yibu engine`` and ``yibu doctor``: engines' environments, and the machine's state."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from yibu.cli import output
from yibu.cli.exits import DONE, FAILED
from yibu.cli.options import JsonOption, argument, option
from yibu.errors import UsageError
from yibu.management.context import Context, open_environments
from yibu.messages import tr

NameArgument = Annotated[
    str, argument("An environment, as `yibu engine ls` names it, or an engine.")
]

_MARKS = {"ok": "✓", "warning": "!", "failure": "✗"}


def register(app: typer.Typer) -> None:
    engine = typer.Typer(no_args_is_help=True, help=tr("The environments that engines run in."))
    engine.command("ls")(ls)
    engine.command("install")(install)
    engine.command("rm")(rm)
    app.add_typer(engine, name="engine")
    app.command()(doctor)


def ls(as_json: JsonOption = False) -> None:
    """List every environment that yibu knows how to make, and which are made."""
    from yibu.environments.specs import SPECS

    made = open_environments(Context.here()).list()
    rows: list[dict[str, Any]] = [
        {
            "name": info.name,
            "engine": SPECS[info.name].engine if info.name in SPECS else "-",
            "state": "installed" if info.current else "outdated",
            "version": info.version,
            "size": info.size if as_json else output.size(info.size),
            "compiled": info.compiled if as_json else output.size(info.compiled),
            "path": info.path,
        }
        for info in made
    ]
    missing = [spec for spec in SPECS.values() if spec.name not in {info.name for info in made}]
    rows += [
        {
            "name": spec.name,
            "engine": spec.engine,
            "state": tr("not installed"),
            "version": None,
            "size": 0 if as_json else None,
            "compiled": 0 if as_json else None,
            "path": None,
        }
        for spec in missing
    ]
    columns = ("NAME", "ENGINE", "STATE", "VERSION", "SIZE", "COMPILED", "PATH")
    output.listing(rows, columns, as_json=as_json, kind="environments")


def install(
    name: NameArgument,
    version: Annotated[
        str | None, option("Another version of the engine than the pinned one.")
    ] = None,
    wheels: Annotated[
        Path | None, option("Install from a folder of wheels, with no index.")
    ] = None,
    build: Annotated[
        str | None,
        option(
            "Build the engine from source, for that device or this very processor.",
            metavar="cuda|vulkan|native",
        ),
    ] = None,
) -> None:
    """Make an engine's environment now, rather than when it is first needed."""
    from yibu.cli.progress import installing

    here = Context.here()
    name = _environment(here, name) if build is None else _build_of(name, build)
    if wheels is not None and not wheels.is_dir():
        raise UsageError(
            "There is no folder {wheels}.",
            wheels=wheels,
            hint="Give a folder that has the wheels: --wheels DIR",
        )
    environments = open_environments(here)
    report = installing(name)
    interpreter = environments.install(name, version=version, progress=report, wheels=wheels)
    made = next(i for i in environments.list() if i.name == name and i.current)
    output.say(
        "{name}  {version} takes {made_size}.",
        name=name,
        version=made.version,
        made_size=output.size(made.size),
    )
    output.data(str(interpreter))


def rm(name: NameArgument) -> None:
    """Remove an engine's environment; it is made again when it is needed."""
    here = Context.here()
    name = _environment(here, name)
    freed = open_environments(here).remove(name)
    if not freed:
        output.say("There is no environment {name} here; nothing was removed.", name=name)
        return
    output.say("Removed the environment {name}, {freed}.", name=name, freed=output.size(freed))


def _environment(here: Context, name: str) -> str:
    from yibu.environments.specs import SPECS, environment_named

    if name in SPECS:
        return name
    return environment_named(name, has_gpu=bool(here.machine().gpus))


def _build_of(engine: str, build: str) -> str:
    """The environment in which ``engine`` is built that way.

    Raises:
        UsageError: it is not; the builds that there are are named.
    """
    from yibu.environments.specs import SPECS

    builds = [spec.name for spec in SPECS.values() if spec.engine == engine and spec.build]
    if (wanted := f"{engine}-{build}") in builds:
        return wanted
    known = ", ".join(name.removeprefix(f"{engine}-") for name in builds)
    raise UsageError(
        "There is no build {build!r} of {engine!r}.",
        build=build,
        engine=engine,
        hint=tr("Its builds: {known}", known=known)
        if known
        else tr("Leave --build out: it comes as packages alone"),
    )


def doctor(as_json: JsonOption = False) -> int:
    """Look at this machine: what is there, what is missing, and what to do about it."""
    from yibu.cli.doctor import examine

    findings = examine(Context.here())
    if as_json:
        output.data_json({"version": 1, "findings": list(map(asdict, findings))})
    else:
        width = max(output.cell_width(finding.subject) for finding in findings)
        for finding in findings:
            subject = output.padded(finding.subject, width)
            output.data(f"{_MARKS[finding.level]} {subject}  {finding.found}")
            if finding.advice:
                output.data(f"  {'':<{width}}  → {finding.advice}")
    return FAILED if any(finding.level == "failure" for finding in findings) else DONE

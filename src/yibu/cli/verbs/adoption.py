"""``yibu adopt``: from a start script, a command line or a process to yibu."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yibu.cli import output
from yibu.cli.exits import DONE
from yibu.cli.options import option
from yibu.errors import UsageError
from yibu.files import write_new
from yibu.management.adopting import adopt_text, text_file
from yibu.management.context import Context
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.adopt import Adoption
    from yibu.node.launch.foreign import Foreign


WhatArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCRIPT | -- COMMAND …]",
        help=tr(
            "A start script, a unit of systemd or supervisord, a Compose file, a manifest, "
            "llama-swap's configuration or a Modelfile; or behind -- the command line itself."
        ),
    ),
]
CommandOption = Annotated[str | None, option("The command line, as one word.", "-c", "--command")]
SetOption = Annotated[
    list[str] | None,
    option(
        "A variable of the script's, or with a number one of its arguments.",
        "--set",
        metavar="NAME=VALUE",
    ),
]
OutputOption = Annotated[
    Path | None, option("Write the file there; do not print it.", "-o", "--output")
]
KeyFileOption = Annotated[
    Path,
    typer.Option(
        help=tr(
            "Where keys that are found go, mode 0600; other credentials go beside it, into a "
            "file that ends in .env."
        )
    ),
]
StopFirstOption = Annotated[
    bool, option("Stop it before the new one starts: memory for one.", "--stop-first")
]
HostOption = Annotated[str | None, option("Another address for the gateway than the old one's.")]


def register(app: typer.Typer) -> None:
    app.command()(adopt)


def adopt(
    what: WhatArgument = None,
    command: CommandOption = None,
    given: SetOption = None,
    pid: Annotated[int | None, option("A running process.", min=1)] = None,
    to: OutputOption = None,
    key_file: KeyFileOption = Path("yibu.keys"),
    replace: Annotated[bool, option("Take the running server's place.", "--replace")] = False,
    stop_first: StopFirstOption = False,
    grace: Annotated[float, option("Seconds that it gets from SIGTERM to SIGKILL.", min=0)] = 20.0,
    host: HostOption = None,
) -> int:
    """Print the yibu.yaml that does what a start script, a command line or a process does; with
    --replace, serve in its place.
    """
    from yibu.adopt import adopt_process

    if sum(bool(one) for one in (what, command, pid)) != 1:
        raise UsageError(
            "One thing to adopt is needed: a script, -- COMMAND …, or --pid PID.",
            hint="For instance: yibu adopt start_vllm.sh",
        )
    old: list[Foreign] = []
    if pid is not None:
        old = [_process(pid, replace=replace)]
        adoption = adopt_process(old[0].argv, old[0].env, old[0].directory)
    elif what is not None and len(what) == 1:
        adoption = _read_script(Path(what[0]), given or [])
    else:
        adoption = _adoption(command or shlex.join(what or []), "", given or [])
    if replace and not adoption.servers:
        raise UsageError(
            "--replace takes the place of vLLM's and llama.cpp's servers only.",
            hint="Write the file with -o, stop the old server, then: yibu up -d -f FILE",
        )
    if replace:
        from yibu.cli.takeover import as_it_runs, find_running

        old = old or find_running(adoption)
        adoption = as_it_runs(adoption, old, Context.here().env, host)
    adoption = _write(adoption, to, key_file)
    if not replace:
        return DONE
    return _replace(adoption, old, to, grace=grace, stop_first=stop_first)


def _read_script(script: Path, given: Sequence[str]) -> Adoption:
    if not script.is_file():
        raise UsageError(
            "There is no file {script}.",
            script=script,
            hint="A command line stands behind --: -- {script} …",
        )
    return _adoption(text_file(script), str(script), given)


def _adoption(text: str, name: str, given: Sequence[str]) -> Adoption:
    pairs = [pair.partition("=") for pair in given]
    if any(not equals for _, equals, _ in pairs):
        raise UsageError("--set takes NAME=VALUE.", hint="For instance: --set PORT=8000")
    values = {variable: value for variable, _, value in pairs}
    return adopt_text(text, name, values, Context.here().env, Path.cwd())


def _process(pid: int, *, replace: bool) -> Foreign:
    if replace:
        from yibu.cli.takeover import read_running

        return read_running(pid)
    from yibu.node.launch.foreign import look

    return look(pid)


def _replace(
    adoption: Adoption, old: Sequence[Foreign], file: Path | None, *, grace: float, stop_first: bool
) -> int:
    from yibu.cli.takeover import Takeover, configuration
    from yibu.management.entries import choose

    here = Context.here()
    chosen = choose((), configuration(adoption, old, file, here.env), here.directory)
    return Takeover(here, chosen.config, chosen.models, old, grace, stop_first).run()


def _write(adoption: Adoption, to: Path | None, key_file: Path) -> Adoption:
    """Warn, put keys into their file, and print or write the rest."""
    for warning in adoption.warnings:
        output.talk(f"! {warning}")
    if adoption.keys:
        _write_new(key_file, "".join(f"{key}\n" for key in adoption.keys))
        output.say(
            "The keys are in {key_file} (mode 0600), which gateway.api_key_file names.",
            key_file=key_file,
        )
        adoption = adoption.with_key_file(str(key_file.absolute()))
    if adoption.secrets:
        _write_secrets(adoption.secrets, key_file.with_suffix(".env"))
    if to is None:
        output.data(adoption.to_yaml().rstrip("\n"))
    else:
        _write_new(to, adoption.to_yaml())
        output.say("Wrote {to}. Start what it names with: yibu up -d -f {to}", to=to)
    return adoption


def _write_secrets(secrets: Mapping[str, str], file: Path) -> None:
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in sorted(secrets.items()))
    _write_new(file, "".join(lines))
    output.say(
        "{secrets}: in {file} (mode 0600). Before yibu up: . {absolute}",
        secrets=", ".join(sorted(secrets)),
        file=file,
        absolute=shlex.quote(str(file.absolute())),
    )


def _write_new(path: Path, text: str) -> None:
    """A new file of mode 0600; one that is there is never changed, and may only say the same."""
    try:
        write_new(path, text)
    except FileExistsError as error:
        if _says(path, text):
            return
        raise UsageError(
            "{path} is there already, with something else in it, and was left as it was.",
            path=path,
            hint="Choose another place with --key-file or -o",
        ) from error


def _says(path: Path, text: str) -> bool:
    """Whether a file has exactly this text, and nobody else can read it."""
    try:
        private = not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        return private and path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False

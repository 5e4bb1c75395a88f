"""``yibu``: registers the verbs, and turns typed errors into messages and exit codes."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Sequence

import typer
from typer.main import get_command_name
from typer.models import CommandInfo

from yibu import __version__, log
from yibu.cli import exits, help_text, output, streams
from yibu.cli.mistyped import ENGINE_FLAG_VERBS, mistyped
from yibu.cli.verbs import (
    adoption,
    bench,
    catalogue,
    changes,
    config,
    documents,
    engines,
    export,
    keys,
    models,
    planning,
    service,
    speech,
    systemd,
    talk,
    watching,
)
from yibu.errors import UsageError, YibuError
from yibu.messages import tr
from yibu.paths import file_error
from yibu.redaction import register_environment


def _print_version(wanted: bool) -> None:
    if wanted:
        output.data(f"yibu {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="yibu",
    cls=help_text.HelpGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing boxes around the help costs more than printing it
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(help=tr("Deploy open language and speech models on your own machines."))
def root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help=tr("Print the version.")
    ),
) -> None:
    del version  # its callback has already answered


for group in (
    service,
    changes,
    watching,
    systemd,
    export,
    planning,
    adoption,
    talk,
    speech,
    bench,
    models,
    keys,
    catalogue,
    documents,
    config,
    engines,
):
    group.register(app)
help_text.translate(app)


def main(argv: Sequence[str] | None = None) -> None:
    """The console script: run one verb and leave with its exit code."""
    streams.prepare()
    log.configure_quiet()
    register_environment(os.environ)
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one verb and return its exit code; only bugs escape as exceptions."""
    words, flags = _split_engine_flags(argv)
    try:
        _refuse_undecoded(argv)
        result = only(words)(words, prog_name="yibu", standalone_mode=False, obj=tuple(flags))
        sys.stdout.flush()
    except typer.Abort:
        return exits.INTERRUPTED
    except typer.TyperException as error:
        output.talk(mistyped(error, words))
        return exits.USAGE
    except streams.OutputError as error:
        streams.discard(sys.stdout)
        if error.reader_gone:
            return exits.READER_GONE
        output.talk(f"yibu: {error}")
        return exits.FAILED
    except YibuError as error:
        output.talk(f"yibu: {error}")
        return exits.exit_code(error)
    except OSError as error:  # a file or a directory of the user's that cannot be used
        output.talk(f"yibu: {file_error(error)}")
        return exits.FAILED
    return result if isinstance(result, int) else exits.DONE


def only(words: Sequence[str]) -> typer.Typer:
    """The application with the verb that is named alone: typer takes 20 ms to make all of them."""
    verb = words[0] if words else ""
    commands = [each for each in app.registered_commands if _name(each) == verb]
    groups = [each for each in app.registered_groups if each.name == verb]
    if not (commands or groups or verb == "--version"):
        return app
    only = copy.copy(app)
    only.registered_commands, only.registered_groups = commands, groups
    return only


def _name(command: CommandInfo) -> str:
    return command.name or get_command_name(command.callback.__name__ if command.callback else "")


def _refuse_undecoded(argv: Sequence[str]) -> None:
    """Refuse words that the locale's encoding cannot hold, which arrive as surrogates."""
    try:
        "".join(argv).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "A word of this command is no text in the encoding {getfilesystemencoding}, "
            "which the locale asks for.",
            getfilesystemencoding=sys.getfilesystemencoding(),
            hint="Use a locale of UTF-8: export LC_ALL=C.UTF-8",
        ) from error


def _split_engine_flags(argv: list[str]) -> tuple[list[str], list[str]]:
    """``up NAME -- --top-k 5`` → the words before ``--`` and the engine's flags after it."""
    if "--" not in argv or not ENGINE_FLAG_VERBS.intersection(argv[:1]):
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]

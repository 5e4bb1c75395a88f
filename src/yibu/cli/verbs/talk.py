"""``yibu run`` and ``yibu chat``: chatting with a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yibu.cli import output
from yibu.cli.options import PortOption, argument, option
from yibu.errors import NotRunningError, SourceError, UsageError, YibuError
from yibu.management.context import Context
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.cli.api import Api

_HELP = tr('Several lines stand between """ and """. /reset forgets the conversation, /bye leaves.')
_LEAVE = frozenset({"/bye", "/exit", "/quit"})
_QUOTES = '"""'

ModelArgument = Annotated[
    str, argument("A running model, a name in yibu.yaml or the catalogue, or a source.")
]
SystemOption = Annotated[str | None, option("A system message.", "--system")]
MaxTokensOption = Annotated[
    int | None, option("End the answer after so many tokens.", "--max-tokens", min=1)
]
TemperatureOption = Annotated[
    float | None,
    option("How much chance there is in an answer; 0: none.", "--temperature", min=0, max=2),
]
HostOption = Annotated[str | None, option("The gateway's address, where this starts one.")]


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(chat)


def run(
    model: ModelArgument,
    prompt: Annotated[str | None, argument("The prompt; stdin is added when it is piped.")] = None,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    host: HostOption = None,
    port: PortOption = None,
) -> None:
    """Talk with a model, which is pulled and started where it is not up; it stays up.

    With a prompt, or with text piped in: one answer, as it comes.
    """
    if prompt is None and _interactive():
        chat(model, system, max_tokens, temperature, host, port)
        return
    question = _question(prompt)
    api, name = _have_up(model, host, port)
    messages = [*_opening(system), {"role": "user", "content": question}]
    _answer(api, {"model": name, "messages": messages} | _sampling(max_tokens, temperature))


def chat(
    model: ModelArgument,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    host: HostOption = None,
    port: PortOption = None,
) -> None:
    """Talk with a model, with history; Ctrl-C stops an answer, /bye leaves."""
    api, name = _have_up(model, host, port)
    _enable_line_editing()
    output.say("Talking with {name}. {HELP}", name=name, HELP=_HELP)
    messages = _opening(system)
    for text in _inputs():
        if text == "/reset":
            messages = _opening(system)
            output.say("The conversation starts anew.")
        elif text.startswith("/") and "\n" not in text:
            output.say("{split} is no command. {HELP}", split=text.split()[0], HELP=_HELP)
        else:
            _exchange(api, name, messages, text, _sampling(max_tokens, temperature))


def _have_up(text: str, host: str | None, port: int | None) -> tuple[Api, str]:
    """The gateway, and the model's name; the model is pulled and started if needed."""
    from yibu.cli.connect import access

    context = Context.here()
    start = partial(_start, context, text, host, port)
    try:
        api = access(context).api
    except NotRunningError:
        return start()
    names = [entry["id"] for entry in api.get("/v1/models")["data"]]
    if text in names and host is None and port is None:
        return api, text
    try:
        return start()
    except SourceError as error:
        up = tr("These are up: {names}. {hint}", names=", ".join(names), hint=error.hint)
        raise SourceError(error.message, hint=up if names else error.hint) from error


def _start(context: Context, text: str, host: str | None, port: int | None) -> tuple[Api, str]:
    """As ``yibu up -d`` does it."""
    from yibu.cli.connect import access
    from yibu.cli.launch import NodeLaunch
    from yibu.cli.session import NodeSession
    from yibu.management.entries import TypedOptions, choose

    typed = TypedOptions(host=host, port=port)
    chosen = choose([text], context.load(), context.directory, typed)
    (model,) = chosen.models
    with NodeLaunch(context) as node:
        NodeSession(context, chosen.config, node).up_detached([model])
    output.say("It stays up; `yibu down {model}` stops it.", model=model.name)
    return access(context).api, model.name


def _exchange(
    api: Api, model: str, messages: list[dict[str, str]], text: str, sampling: dict[str, Any]
) -> None:
    """One question and its answer; a failed or interrupted one leaves the history as it was."""
    asked = [*messages, {"role": "user", "content": text}]
    try:
        answer = _answer(api, {"model": model, "messages": asked} | sampling)
    except KeyboardInterrupt:
        output.talk("\n" + tr("(interrupted)"))
        return
    except output.OutputError:
        raise
    except YibuError as error:
        output.talk(f"yibu: {error}")
        return
    messages[:] = [*asked, {"role": "assistant", "content": answer}]


def _answer(api: Api, body: dict[str, Any]) -> str:
    """Stream one answer to stdout and return it whole."""
    pieces: list[str] = []
    for event in api.stream("/v1/chat/completions", body | {"stream": True}):
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                sys.stdout.write(text)
                sys.stdout.flush()
                pieces.append(text)
    sys.stdout.write("\n")
    sys.stdout.flush()
    return "".join(pieces)


def _question(prompt: str | None) -> str:
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    question = "\n\n".join(part for part in (prompt or "", piped.strip()) if part)
    if not question:
        raise UsageError(
            "There is nothing to ask.", hint='Give a prompt: yibu run MODEL "Why is the sky blue?"'
        )
    return question


def _opening(system: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []


def _sampling(max_tokens: int | None, temperature: float | None) -> dict[str, Any]:
    given = {"max_tokens": max_tokens, "temperature": temperature}
    return {name: value for name, value in given.items() if value is not None}


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _inputs() -> Iterator[str]:
    """What the user says, until the end of input or a word that leaves; never empty.

    A line that begins with three quotation marks goes on to the line that ends with them.
    """
    while (line := _read_line(">>> ")) is not None:
        if line.strip() in _LEAVE:
            return
        if line.lstrip().startswith(_QUOTES):
            line = _rest_of_block(line.lstrip().removeprefix(_QUOTES))
        if text := line.strip():
            yield text


def _rest_of_block(first: str) -> str:
    lines: list[str] = []
    line: str | None = first
    while line is not None:
        if line.rstrip().endswith(_QUOTES):
            return "\n".join([*lines, line.rstrip().removesuffix(_QUOTES)])
        lines.append(line)
        line = _read_line("... ")
    return "\n".join(lines)


def _read_line(prompt: str) -> str | None:
    """One line, or None at the end of input; Ctrl-C gives the line up, not the conversation."""
    while True:
        try:
            return input(prompt if _interactive() else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not _interactive():
                raise
            output.talk("\n" + tr("(/bye leaves)"))


def _enable_line_editing() -> None:
    """Arrow keys and history for ``input``, where Python was built with readline."""
    try:
        import readline  # noqa: F401, importing it is what enables it
    except ImportError:
        output.say("(This Python has no readline: no line editing.)")

"""``yibu run`` and ``yibu chat``: talk to a model from the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yibu.cli import output
from yibu.cli.connect import gateway_api
from yibu.cli.context import Context
from yibu.errors import UsageError, YibuError

if TYPE_CHECKING:
    from yibu.cli.api import Api

_HELP = "/reset forgets the conversation, /exit leaves (so does Ctrl-D)."

SystemOption = Annotated[str | None, typer.Option("--system", help="A system message.")]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", min=1)]
TemperatureOption = Annotated[float | None, typer.Option("--temperature", min=0, max=2)]


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(chat)


def run(
    model: Annotated[str, typer.Argument(help="A running model's name.")],
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; stdin is added when it is piped.")
    ] = None,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
) -> None:
    """Ask one thing and print the answer as it comes."""
    question = _question(prompt)
    messages = _opening(system)
    messages.append({"role": "user", "content": question})
    _answer(
        gateway_api(Context.here()),
        {"model": model, "messages": messages} | _sampling(max_tokens, temperature),
    )


def chat(
    model: Annotated[str, typer.Argument(help="A running model's name.")],
    system: SystemOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
) -> None:
    """Talk with a model, with history; /reset forgets it, /exit leaves."""
    api = gateway_api(Context.here())
    _enable_line_editing()
    output.talk(f"Talking with {model}. {_HELP}")
    messages = _opening(system)
    while (line := _read_line()) is not None:
        if line in {"/exit", "/quit"}:
            return
        if line == "/reset":
            messages = _opening(system)
            output.talk("The conversation starts anew.")
        elif line.startswith("/"):
            output.talk(f"{line} is no command. {_HELP}")
        elif line:
            _turn(api, model, messages, line, _sampling(max_tokens, temperature))


def _turn(
    api: Api, model: str, messages: list[dict[str, str]], line: str, sampling: dict[str, Any]
) -> None:
    """One question and its answer; a failed or interrupted one leaves the history as it was."""
    asked = [*messages, {"role": "user", "content": line}]
    try:
        answer = _answer(api, {"model": model, "messages": asked} | sampling)
    except KeyboardInterrupt:
        output.talk("\n(interrupted)")
        return
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


def _read_line() -> str | None:
    """One line of the user's, or None at the end of input."""
    try:
        return input(">>> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def _enable_line_editing() -> None:
    """Arrow keys and history for ``input``, where Python was built with readline."""
    try:
        import readline  # noqa: F401, importing it is what enables it
    except ImportError:
        output.talk("(This Python has no readline: no line editing.)")

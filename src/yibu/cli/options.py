"""Options and arguments that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from yibu.messages import tr


def option(text: str, *names: str, **settings: Any) -> Any:
    """An option of a verb, with its help in the terminal's language."""
    return typer.Option(*names, help=tr(text), **settings)


def argument(text: str, **settings: Any) -> Any:
    """An argument of a verb, with its help in the terminal's language."""
    return typer.Argument(help=tr(text), **settings)


FileOption = Annotated[Path | None, option("The configuration file (./yibu.yaml).", "-f", "--file")]
JsonOption = Annotated[bool, option("Print JSON.", "--json")]
OfflineOption = Annotated[
    bool, option("Use only what is on this disk.", "--offline", envvar="YIBU_OFFLINE")
]
EngineOption = Annotated[
    str | None, option("llama.cpp, vllm, sglang, lmdeploy, speech or command.")
]
PortOption = Annotated[int | None, option("The gateway's port.", min=0, max=65535)]

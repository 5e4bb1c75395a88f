"""What servers of safetensors models that run on GPUs alone have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from yibu.config import ModelConfig
from yibu.engines.argparse_table import table_from
from yibu.engines.base import Engine
from yibu.engines.checks import own_flags
from yibu.engines.flags import Flag, FlagTable
from yibu.engines.options import ServerOptions, read_options
from yibu.engines.servers import ServerCommand
from yibu.errors import UnsupportedError
from yibu.messages import tr
from yibu.planner.types import ModelFacts, Placement

OptionsType = TypeVar("OptionsType", bound=ServerOptions)


class GpuServer(Engine, Generic[OptionsType]):
    """Such an engine; ``table`` has the flags of the version that will run."""

    title: str
    """What its makers call it."""
    options_type: type[OptionsType]
    server: ServerCommand
    formats = frozenset({"safetensors"})
    serves = tr("safetensors models")
    for_gpus = True

    def __init__(self, table: FlagTable | None = None) -> None:
        self._server = dataclasses.replace(self.server, table=table or self.server.table)

    def check(self, model: ModelConfig) -> None:
        self._read(model)

    def with_flags(self, plain: Mapping[str, Any]) -> Self:
        return type(self)(table_from(plain))

    def _read(self, model: ModelConfig) -> tuple[OptionsType, list[Flag]]:
        """The options that have a name here, and the user's flags for the engine itself."""
        table = self._server.table
        own = {*table.flags, *table.short, *table.negations}
        options, rest = read_options(self.options_type, model, self.name, own)
        given = [*table.of_options(rest), *table.read(model.flags)]
        return options, list(own_flags(model, given, self._server, self.title))

    def placed(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> ModelFacts:
        """As :meth:`served`; raises UnsupportedError on a CPU too."""
        found = self.served(model, facts)
        if not placement.gpus:
            raise UnsupportedError(
                tr(
                    "model {model!r}: {name} runs on GPUs, and it was placed on the CPU",
                    model=model.name,
                    name=self.name,
                ),
                hint=tr("take engine: vllm, or a GGUF of the model with engine: llama.cpp"),
            )
        return found

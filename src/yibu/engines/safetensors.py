"""What servers of safetensors models have in common: vLLM, SGLang and LMDeploy.

Every flag of the server can be given, as an option by its name or after ``--``. What the planner decided
(length, sequences, tensor parallel, memory) is written first, then what yibu adds for a good reason, then
the user's flags, which therefore win.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Generic, Self, TypeVar

from yibu.config import ModelConfig
from yibu.engines.base import Engine, LaunchPlan
from yibu.engines.checks import own_flags
from yibu.engines.families import family_of, parser_words
from yibu.engines.flags import Flag, FlagTable, Given
from yibu.engines.gpu_variables import visible_gpus
from yibu.engines.options import ServerOptions, adapter_sources, read_options, to_flags
from yibu.engines.servers import ServerCommand
from yibu.errors import UnsupportedError
from yibu.messages import tr
from yibu.planner.lora import Slots
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Placement

_OTHER_TEMPLATE = tr("options.chat_template: FILE has another used")

OptionsType = TypeVar("OptionsType", bound=ServerOptions)


class SafetensorsServer(Engine, Generic[OptionsType]):
    """An engine for safetensors models; ``table`` has the flags of the version that will run."""

    server: ServerCommand
    options_type: type[OptionsType]
    key_variable: str
    no_template: str
    """What it does for a model without a chat template, as a note."""
    formats = frozenset({"safetensors"})
    serves = tr("safetensors models")
    for_gpus = True
    flags_by_version = True

    def __init__(self, table: FlagTable | None = None) -> None:
        if table is not None:
            self.server = dataclasses.replace(self.server, table=table)

    def check(self, model: ModelConfig) -> None:
        self._read(model, [])

    def with_flags(self, plain: Mapping[str, Any]) -> Self:
        return type(self)(self.server.table.from_plain(plain))

    def _read(self, model: ModelConfig, notes: list[str]) -> tuple[OptionsType, list[Flag]]:
        """yibu's own options, and the user's flags for the server."""
        server, table = self.server, self.server.table
        own = {*table.flags, *table.short, *table.negations, *server.translations}
        entry = dataclasses.replace(model, options=_counted(model, server.options))
        options, rest = read_options(self.options_type, entry, self.name, own)
        given = [*table.of_options(rest), *table.read(model.flags)]
        return options, list(own_flags(model, given, server, notes))

    def _given(self, model: ModelConfig) -> Given:
        return Given.of(model, self.server.table, self.server.options)

    def _request(
        self, model: ModelConfig, facts: ModelFacts | None, given: Given, **values: Any
    ) -> Request:
        """The request to the planner, with ``values`` of the engine's own."""
        names = self.server.options
        context = given.number(names["context"])
        return Request(
            name=model.name,
            rule="paged",
            facts=facts,
            context=context if context and context > 0 else None,
            parallel=given.number(names["parallel"]),
            tensor_parallel=given.number(names["tensor_parallel"]),
            dtype=given.text("dtype"),
            gpus=model.gpus,
            memory=model.memory,
            replicas=model.replicas,
            **values,
        )

    def _placed(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> ModelFacts:
        """As :meth:`served`, of a server that needs GPUs; raises UnsupportedError on a CPU too."""
        found = self.served(model, facts)
        if not placement.gpus:
            raise UnsupportedError(
                "model {model!r}: {name} runs on GPUs, and it was placed on the CPU",
                model=model.name,
                name=self.name,
                hint="Take engine: vllm, or a GGUF of the model with engine: llama.cpp",
            )
        return found

    def _planned(
        self, placement: Placement, users: Collection[str], notes: list[str], **flags: Any
    ) -> list[str]:
        """Flags for the planner's decisions, and further ``flags``, unless the user gives them."""
        names = self.server.options
        decided: dict[str, Any] = {names["parallel"]: placement.parallel}
        if placement.context is not None:
            decided[names["context"]] = placement.context
        if placement.tensor_parallel > 1:
            decided[names["tensor_parallel"]] = placement.tensor_parallel
        if placement.dtype is not None and "dtype" not in users:
            decided["dtype"] = placement.dtype
            notes.append(
                tr(
                    "--dtype {dtype}: not every GPU of these computes in the dtype that the "
                    "weights are stored in (options.dtype)",
                    dtype=placement.dtype,
                )
            )
        decided |= flags
        return to_flags({name: value for name, value in decided.items() if name not in users})

    def _parsers(
        self,
        model: ModelConfig,
        facts: ModelFacts,
        options: OptionsType,
        users: Collection[str],
        notes: list[str],
    ) -> tuple[list[str], bool]:
        """Flags of reasoning and tool parsers, the user's or those of the model's family; whether tool
        calls are parsed."""
        if facts.pooling:
            return [], False
        family = family_of(self.name, facts.architecture, model.source, model.name)
        words, parses = parser_words(
            family, options.reasoning_parser, options.tool_call_parser, users, notes
        )
        if "chat_template" in users:
            return words, parses
        # Some families' own templates leave a request's tools out, so that the model never calls one.
        template = family.parsers.template if family is not None and parses else None
        if template and family and not facts.template_takes_tools:
            lack = tr("takes no tools") if facts.chat_template else tr("is missing")
            notes.append(
                tr(
                    "chat template: yibu's for {title}, because the model's own {lack} ({example})",
                    title=family.title,
                    lack=lack,
                    example=_OTHER_TEMPLATE,
                )
            )
            words += ["--chat-template", f"{{templates}}/{template}"]
        elif not facts.chat_template:
            notes.append(self.no_template)
        elif parses and not facts.template_takes_tools:
            notes.append(
                tr(
                    "chat template: the one in the model's files, which takes no tools: a "
                    "request's tools do not reach the model ({example})",
                    example=_OTHER_TEMPLATE,
                )
            )
        else:
            notes.append(
                tr(
                    "chat template: the one in the model's files ({example})",
                    example=_OTHER_TEMPLATE,
                )
            )
        return words, parses

    def _launch(
        self,
        model: ModelConfig,
        facts: ModelFacts,
        placement: Placement,
        options: OptionsType,
        env: Mapping[str, str],
        **values: Any,
    ) -> LaunchPlan:
        """The launch plan, with ``values`` of the engine's own."""
        on_gpu = bool(placement.gpus)
        shared = {
            # The weights are on disk and checked: no hub is asked.
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            "TORCHINDUCTOR_CACHE_DIR": "{cache}/inductor",
            "TRITON_CACHE_DIR": "{cache}/triton",
            **visible_gpus(placement.gpus),
        }
        return LaunchPlan(
            engine=self.name,
            env={**shared, **env, **model.env},
            environment=self.environment(model, facts, gpu=on_gpu),
            key_variable=self.key_variable,
            start_timeout=options.start_timeout,
            keeps_compiled=True,
            needs_temporary=True,
            starts_alone=on_gpu,
            stop_whole_group=False,
            extra_sources=adapter_sources(options.lora),
            **values,
        )


def _counted(model: ModelConfig, names: Collection[str]) -> dict[str, Any]:
    """The entry's options, lengths and numbers that are written as vLLM reads them (``256K``) as numbers."""
    given = Given(model.name, model.options)
    numbers = {n: given.number(n) for n in names if isinstance(model.options.get(n), str)}
    return {**model.options, **numbers}


def unless_given(users: Collection[str], *words: str) -> list[str]:
    """A flag with its value, unless the user gave it."""
    return [] if words[0].lstrip("-").replace("-", "_") in users else [*words]


def adapter_paths(lora: Mapping[str, str]) -> list[str]:
    """``NAME=PATH`` of each LoRA adapter."""
    return [f"{name}={{lora_{number}}}" for number, name in enumerate(lora)]


def lora_slots(
    model: ModelConfig, given: Given, count: int | None, kept: int | None
) -> Slots | None:
    """Slots for adapters as vLLM and SGLang make them; None where nothing asks for any."""
    if not model.options.get("lora") and not given.switch("enable_lora"):
        return None
    usual = Slots()
    return Slots(
        count=count or usual.count,
        rank=given.number("max_lora_rank") or usual.rank,
        kept=kept or usual.kept,
    )

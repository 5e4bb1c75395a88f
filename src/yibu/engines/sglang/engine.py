"""SGLang: safetensors models on GPUs.

Every flag of SGLang's can be given, as an option by its name or after ``--``. What the planner decided
(length, requests at once, tensor parallel, memory) is written first, then what yibu adds for a good
reason, then the user's flags, which therefore win. It is started by yibu's launcher, which puts the
inner key in place and makes a fraction of its memory.
"""

from __future__ import annotations

from typing import Any

from yibu.config import EngineName, ModelConfig
from yibu.engines.answers import Answers
from yibu.engines.base import (
    Capability,
    LaunchPlan,
    Verdict,
    visible_gpus,
)
from yibu.engines.families import family_of, parser_words
from yibu.engines.flags import Given
from yibu.engines.gpu_server import GpuServer
from yibu.engines.options import ServerOptions, adapter_sources, to_flags
from yibu.engines.requests import Abilities, RequestTable
from yibu.engines.servers import ServerCommand
from yibu.engines.sglang.answers import SglangAnswers
from yibu.engines.sglang.families import FAMILIES
from yibu.engines.sglang.requests import SGLANG_REQUESTS, adapter_feature
from yibu.engines.sglang.server import KEY_VARIABLE, OPTIONS, SERVER
from yibu.messages import tr
from yibu.planner.lora import Slots
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Placement

LAUNCHER = "yibu.launchers.sglang"
_USUAL_CHUNK = 8192
"""Tokens of a prefill step that SGLang takes of its own accord on large cards, the most."""
_USUAL_ADAPTERS = 8
_STOP_GRACE = 30.0
"""SGLang looks every five seconds whether it was told to stop, then ends its own processes."""


class SglangOptions(ServerOptions):
    """What ``options:`` may hold for SGLang beside its own flags by name."""


class Sglang(GpuServer[SglangOptions]):
    """The engine for safetensors models on GPUs."""

    name: EngineName = "sglang"
    title = "SGLang"
    options_type = SglangOptions
    answers: Answers = SglangAnswers()
    requests: RequestTable = SGLANG_REQUESTS
    server: ServerCommand = SERVER
    flags_module: str | None = "yibu.launchers.sglang_flags"

    def supports(self, model: ModelConfig, facts: ModelFacts | None) -> Verdict:
        if (
            facts
            and facts.pooling
            and ("Classif" in facts.architecture or "Rerank" in facts.architecture)
        ):
            return Verdict(
                False, tr("sglang's answers of rerankers are none of OpenAI's or Jina's")
            )
        return super().supports(model, facts)

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        given = Given.of(model, self._server.table, OPTIONS)
        return Request(
            name=model.name,
            rule="paged",
            facts=facts,
            context=given.number("context_length"),
            parallel=given.number("max_running_requests"),
            dtype=given.text("dtype"),
            kv_dtype=given.text("kv_cache_dtype"),
            tensor_parallel=given.number("tp_size"),
            pipeline_parallel=given.number("pp_size") or 1,
            gpus=model.gpus,
            memory=model.memory,
            memory_share=given.fraction("mem_fraction_static"),
            batched=given.number("chunked_prefill_size") or _USUAL_CHUNK,
            embeds=bool(facts and facts.pooling),
            eager=given.switch("disable_cuda_graph"),
            replicas=model.replicas,
            lora=_lora_slots(model, given),
        )

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        facts = self.placed(model, facts, placement)
        notes: list[str] = []
        options, users = self._read(model)
        names = {flag.name for flag in users}
        argv = [
            "{python}", "-m", LAUNCHER, *_memory(placement, names), "--",
            "--model-path", "{model}", "--host", "{host}", "--port", "{port}",
            "--served-model-name", model.name,
            *_placement_flags(placement, names, notes),
            *_gateway_flags(facts, names),
            *_adapters(options, names, notes),
            *_parsers(options, facts, model, names, notes),
            *(word for flag in users for word in flag.words),
        ]  # fmt: skip
        return LaunchPlan(
            engine=self.name,
            argv=tuple(argv),
            env={**_environment(placement), **model.env},
            capabilities=_capabilities(facts, names),
            abilities=Abilities(features=frozenset(map(adapter_feature, options.lora or ()))),
            environment=self.environment(model, facts, gpu=True),
            key_variable=KEY_VARIABLE,
            start_timeout=options.start_timeout,
            keeps_compiled=True,
            needs_temporary=True,
            starts_alone=True,
            stop_grace=_STOP_GRACE,
            stop_whole_group=False,
            extra_sources=adapter_sources(options.lora),
            notes=tuple(notes),
        )


def _lora_slots(model: ModelConfig, given: Given) -> Slots | None:
    if not model.options.get("lora") and not given.switch("enable_lora"):
        return None
    usual = Slots()
    return Slots(
        count=given.number("max_loras_per_batch") or _USUAL_ADAPTERS,
        rank=given.number("max_lora_rank") or usual.rank,
        kept=given.number("max_loaded_loras") or usual.kept,
    )


def _memory(placement: Placement, users: set[str]) -> list[str]:
    """What weights and cache may take, in bytes, of which the launcher makes SGLang's fraction."""
    if "mem_fraction_static" in users:
        return []
    need = placement.need
    return ["--static-bytes", str(need.weights + need.kv_cache + need.adapters)]


def _placement_flags(placement: Placement, users: set[str], notes: list[str]) -> list[str]:
    flags: dict[str, Any] = {"max_running_requests": placement.parallel}
    if placement.context is not None:
        flags["context_length"] = placement.context
    if placement.tensor_parallel > 1:
        flags["tp_size"] = placement.tensor_parallel
    if placement.dtype is not None and "dtype" not in users:
        flags["dtype"] = placement.dtype
        notes.append(tr(
"--dtype {dtype}: not every GPU of these computes in the dtype that the weights "
"are stored in (options.dtype)",
dtype=placement.dtype
))  # fmt: skip
    return to_flags(flags)


def _gateway_flags(facts: ModelFacts, users: set[str]) -> list[str]:
    """What suits the gateway, unless the user says otherwise: it writes a line a request itself, and
    its metrics page has the engine's."""
    words = [] if "log_level_http" in users else ["--log-level-http", "warning"]
    words += [] if "enable_metrics" in users else ["--enable-metrics"]
    return [*words, *(["--is-embedding"] if facts.pooling and "is_embedding" not in users else [])]


def _adapters(options: SglangOptions, users: set[str], notes: list[str]) -> list[str]:
    if not options.lora:
        return []
    notes.append(tr(
"--enable-lora: {lora} beside the model itself (options.max_loras_per_batch, 8, "
"decides how many at once)",
lora=", ".join(options.lora)
))  # fmt: skip
    enable = [] if "enable_lora" in users else ["--enable-lora"]
    paths = [f"{name}={{lora_{number}}}" for number, name in enumerate(options.lora)]
    return [*enable, "--lora-paths", *paths]


def _parsers(
    options: SglangOptions, facts: ModelFacts, model: ModelConfig, users: set[str], notes: list[str]
) -> list[str]:
    """Reasoning and tool parsers, the user's or those of the model's family with the reason."""
    if facts.pooling:
        return []
    family = family_of(FAMILIES, facts.architecture, model.source, model.name)
    words, parses = parser_words(
        family, options.reasoning_parser, options.tool_call_parser, users, notes
    )
    if "chat_template" not in users and not facts.chat_template:
        notes.append(
            tr(
                "chat template: the model's files have none, so that SGLang looks for one by "
                "the model's path (options.chat_template: FILE gives one)"
            )
        )
    elif parses and "chat_template" not in users and not facts.template_takes_tools:
        notes.append(
            tr(
                "chat template: the one in the model's files takes no tools: a request's "
                "tools do not reach the model (options.chat_template: FILE has another used)"
            )
        )
    return words


def _environment(placement: Placement) -> dict[str, str]:
    return {
        # The weights are on disk and checked: no hub is asked.
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        # Asked how it is, SGLang would else make a token each time; the node asks for one itself.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        "TORCHINDUCTOR_CACHE_DIR": "{cache}/inductor",
        "TRITON_CACHE_DIR": "{cache}/triton",
        **visible_gpus(placement.gpus),
    }


def _capabilities(facts: ModelFacts, users: set[str]) -> frozenset[Capability]:
    if facts.pooling or "is_embedding" in users:
        return frozenset({"embeddings", "tokenize"})
    return frozenset({"chat", "completions", "responses", "messages", "tokenize"})

"""SGLang: safetensors models on GPUs.

It is started by yibu's launcher, which puts the inner key in place and makes a fraction of its memory.
"""

from __future__ import annotations

from yibu.config import EngineName, ModelConfig
from yibu.engines.base import Capability, LaunchPlan, Verdict
from yibu.engines.flags import FlagTable, pinned_flags
from yibu.engines.options import ServerOptions
from yibu.engines.requests import Abilities, RequestTable
from yibu.engines.safetensors import (
    SafetensorsServer,
    adapter_paths,
    lora_slots,
    unless_given,
)
from yibu.engines.servers import ServerCommand, server_command
from yibu.engines.sglang.requests import SGLANG_REQUESTS, adapter_feature
from yibu.messages import tr
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Placement

_USUAL_CHUNK = 8192
"""Tokens of a prefill step that SGLang uses at most by default, on large cards."""
_USUAL_ADAPTERS = 8


class Sglang(SafetensorsServer[ServerOptions]):
    """The engine for safetensors models on GPUs."""

    name: EngineName = "sglang"
    options_type = ServerOptions
    requests: RequestTable = SGLANG_REQUESTS
    server: ServerCommand = server_command(
        "sglang", FlagTable.from_plain(pinned_flags(__package__))
    )
    # Of yibu's launcher: SGLang itself reads its key from the command line alone.
    key_variable = "SGLANG_API_KEY"
    no_template = tr(
        "chat template: the model's files have none, so that SGLang looks for one by "
        "the model's path (options.chat_template: FILE gives one)"
    )

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
        given = self._given(model)
        adapters = given.number("max_loras_per_batch") or _USUAL_ADAPTERS
        return self._request(
            model,
            facts,
            given,
            kv_dtype=given.text("kv_cache_dtype"),
            pipeline_parallel=given.number("pp_size") or 1,
            memory_share=given.fraction("mem_fraction_static"),
            batched=given.number("chunked_prefill_size") or _USUAL_CHUNK,
            embeds=bool(facts and facts.pooling),
            eager=given.switch("disable_cuda_graph"),
            lora=lora_slots(model, given, adapters, given.number("max_loaded_loras")),
        )

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        facts = self._placed(model, facts, placement)
        notes: list[str] = []
        options, users = self._read(model, notes)
        names = {flag.name for flag in users}
        argv = [
            *("{python}", "-m", "yibu.launchers.sglang", *_memory(placement, names), "--"),
            *("--model-path", "{model}", "--host", "{host}", "--port", "{port}"),
            *("--served-model-name", model.name),
            *self._planned(placement, names, notes),
            # The gateway writes a line a request, and its metrics page has the engine's.
            *unless_given(names, "--log-level-http", "warning"),
            *unless_given(names, "--enable-metrics"),
            *(unless_given(names, "--is-embedding") if facts.pooling else ()),
            *_adapters(options, names, notes),
            *self._parsers(model, facts, options, names, notes)[0],
            *(word for flag in users for word in flag.words),
        ]
        return self._launch(
            model,
            facts,
            placement,
            options,
            # Asked how it is, SGLang would else make a token each time; the node asks for one itself.
            {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0"},
            argv=tuple(argv),
            capabilities=_capabilities(facts, names),
            abilities=Abilities(features=frozenset(map(adapter_feature, options.lora or ()))),
            # It looks every five seconds whether it was told to stop, then ends its processes.
            stop_grace=30.0,
            notes=tuple(notes),
        )


def _memory(placement: Placement, users: set[str]) -> list[str]:
    """Bytes for weights and cache, from which the launcher makes SGLang's fraction."""
    need = placement.need
    static = str(need.weights + need.kv_cache + need.adapters)
    return [] if "mem_fraction_static" in users else ["--static-bytes", static]


def _adapters(options: ServerOptions, users: set[str], notes: list[str]) -> list[str]:
    if not options.lora:
        return []
    notes.append(
        tr(
            "--enable-lora: {lora} beside the model itself (options.max_loras_per_batch, 8, "
            "decides how many at once)",
            lora=", ".join(options.lora),
        )
    )
    return [
        *unless_given(users, "--enable-lora"),
        *("--lora-paths", *adapter_paths(options.lora)),
    ]


def _capabilities(facts: ModelFacts, users: set[str]) -> frozenset[Capability]:
    if facts.pooling or "is_embedding" in users:
        return frozenset({"embeddings", "tokenize"})
    return frozenset({"chat", "completions", "responses", "messages", "tokenize"})

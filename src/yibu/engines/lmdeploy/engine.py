"""LMDeploy: safetensors models on GPUs, by TurboMind where it knows the architecture, else by its PyTorch
engine.

It is started by yibu's launcher, which puts the inner key in place and makes a fraction of its memory.
"""

from __future__ import annotations

from yibu.config import EngineName, ModelConfig
from yibu.engines.base import LaunchPlan, Verdict
from yibu.engines.flags import FlagTable, pinned_flags
from yibu.engines.lmdeploy.requests import LMDEPLOY_REQUESTS, PYTORCH
from yibu.engines.options import ServerOptions
from yibu.engines.requests import Abilities, RequestTable
from yibu.engines.safetensors import SafetensorsServer, adapter_paths, unless_given
from yibu.engines.servers import ServerCommand, server_command
from yibu.messages import tr
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Placement

_USUAL_PREFILL = 8192
"""Tokens of a prefill step by default."""
_KV_DTYPES = {
    **dict.fromkeys(("8", "int8"), "int8"),
    **dict.fromkeys(("16", "17", "fp8", "fp8_e4m3", "fp8_e5m2"), "fp8"),
    **dict.fromkeys(("4", "int4"), "int4"),
}
"""The planner's name for the cache's type, by ``quant_policy``."""


class Lmdeploy(SafetensorsServer[ServerOptions]):
    """The engine for safetensors models on GPUs."""

    name: EngineName = "lmdeploy"
    options_type = ServerOptions
    requests: RequestTable = LMDEPLOY_REQUESTS
    server: ServerCommand = server_command(
        "lmdeploy", FlagTable.from_plain(pinned_flags(__package__))
    )
    # Of yibu's launcher: LMDeploy itself reads its keys from the command line alone.
    key_variable = "LMDEPLOY_API_KEY"
    no_template = tr(
        "chat template: the model's files have none, so that LMDeploy looks for one of its own by "
        "the model's name (options.chat_template: NAME or a JSON file gives one)"
    )

    def supports(self, model: ModelConfig, facts: ModelFacts | None) -> Verdict:
        if facts and facts.pooling:
            return Verdict(False, tr("lmdeploy's server makes no embeddings and ranks nothing"))
        return super().supports(model, facts)

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        given = self._given(model)
        return self._request(
            model,
            facts,
            given,
            kv_dtype=_KV_DTYPES.get((given.text("quant_policy") or "").lower()),
            batched=given.number("max_prefill_token_num") or _USUAL_PREFILL,
            eager=given.switch("eager_mode"),
        )

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        facts = self._placed(model, facts, placement)
        notes: list[str] = []
        options, users = self._read(model, notes)
        names = {flag.name for flag in users}
        argv = [
            *("{python}", "-m", "yibu.launchers.lmdeploy", *_memory(placement, names, notes)),
            *("--", "{model}", "--server-name", "{host}", "--server-port", "{port}"),
            *("--model-name", model.name),
            *self._planned(placement, names, notes),
            # A caller who is gone must not keep its share of the batch.
            *unless_given(names, "--enable-abort-handling"),
            *_adapters(options, names, notes),
            *self._parsers(model, facts, options, names, notes)[0],
            *(word for flag in users for word in flag.words),
        ]
        chosen = ("backend", ("pytorch",)) in {(flag.name, flag.values) for flag in users}
        return self._launch(
            model,
            facts,
            placement,
            options,
            # The gateway writes a line a request.
            {"UVICORN_LOG_LEVEL": "warning"},
            argv=tuple(argv),
            capabilities=frozenset({"chat", "completions", "responses"}),
            abilities=Abilities(
                features=frozenset({PYTORCH} if chosen or options.lora else ()),
            ),
            # Its HTTP server lets answers end, then the engine frees what it holds.
            stop_grace=30.0,
            notes=tuple(notes),
        )


def _memory(placement: Placement, users: set[str], notes: list[str]) -> list[str]:
    """Bytes for weights and cache, from which the launcher makes LMDeploy's fraction."""
    if users & {"cache_max_entry_count", "num_gpu_blocks"}:
        notes.append(
            tr(
                "the KV cache takes what your flags say, not what the plan has for it: "
                "LMDeploy's fraction is one of what is free beside the weights"
            )
        )
        return []
    need = placement.need
    weights = str(need.weights + need.adapters)
    return ["--weight-bytes", weights, "--cache-bytes", str(need.kv_cache)]


def _adapters(options: ServerOptions, users: set[str], notes: list[str]) -> list[str]:
    if not options.lora:
        return []
    notes.append(
        tr("--backend pytorch: TurboMind takes no adapters ({lora})", lora=", ".join(options.lora))
    )
    backend = unless_given(users, "--backend", "pytorch")
    return [*backend, "--adapters", *adapter_paths(options.lora)]

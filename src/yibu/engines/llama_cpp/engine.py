"""llama.cpp, run by yibu's launcher on xllamacpp: GGUF models on CPUs. On GPUs, and wherever the user
has one, a llama-server built here or elsewhere runs instead.

llama.cpp's parameters are the fields of xllamacpp's ``CommonParams``; the launcher sets them from
``--set FIELD=JSON``. Options of ours stand for the common ones, every other field can be set by
its own name, and llama-server's usual flags are understood too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from yibu.config import EngineName, ModelConfig
from yibu.engines.answers import Answers
from yibu.engines.base import (
    Ask,
    Capability,
    Engine,
    LaunchPlan,
)
from yibu.engines.gpu_variables import visible_gpus
from yibu.engines.llama_cpp.answers import LlamaCppAnswers
from yibu.engines.llama_cpp.chat_template import chat_template
from yibu.engines.llama_cpp.command_line import command_line, read_own
from yibu.engines.llama_cpp.notes import without_gpu, without_template
from yibu.engines.llama_cpp.program import (
    Device,
    Program,
    accelerator,
    choose_program,
    devices_of_packaged,
    named,
)
from yibu.engines.llama_cpp.request import request_of
from yibu.engines.llama_cpp.requests import IMAGES, LLAMA_CPP_REQUESTS
from yibu.engines.llama_cpp.server import SERVER
from yibu.engines.llama_cpp.settings import LlamaCppSettings, read_settings
from yibu.engines.llama_cpp.table import ALL, FIELDS
from yibu.engines.options import Options, read_options
from yibu.engines.requests import Abilities, RequestTable
from yibu.engines.servers import ServerCommand
from yibu.environments.specs import environment_for
from yibu.errors import ConfigError
from yibu.messages import tr
from yibu.planner.arithmetic import MIB
from yibu.planner.chat_template import takes_tools
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Offload, Placement
from yibu.weights.gguf import ArrayLength

KEY_VARIABLE = "YIBU_ENGINE_KEY"
OWN_KEY_VARIABLE = "LLAMA_API_KEY"
"""The key variable of llama-server itself."""
_PROJECTORS = frozenset({"-mm", "--mmproj", "--no-mmproj", "--no-mmproj-auto"})
_SEES = frozenset({"-mm", "--mmproj", "-mmu", "--mmproj-url", "mmproj.path", "mmproj.url",
                   "mmproj.hf_repo", "mmproj.docker_repo"})  # fmt: skip
"""Words of which any in the command loads a projector."""
LAUNCHER = "yibu.launchers.llama_cpp"

_DEFAULT_CONTEXT = 4096
_DEFAULT_BATCH = 2048
_HTTP_THREADS_SPARE = 16
_PROMPT_CACHE_MIB = 1024

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


class LlamaCppOptions(Options):
    """What ``options:`` may hold for llama.cpp, beside the engine's own field names."""

    context: int | None = Field(None, ge=64)
    """Tokens a sequence."""
    parallel: int | None = Field(None, ge=1, le=256)
    """Sequences served at once; also the largest ``n`` of a request."""
    threads: int | None = Field(None, ge=1, le=512)
    gpu_layers: Annotated[int, Field(ge=-1)] | Literal["auto", "all"] | None = None
    """Layers on the GPU; -1 and ``auto`` are all that fit."""
    embeddings: bool = False
    """Serve /v1/embeddings beside chat."""
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    """How token vectors become one; ``rank`` makes a reranker."""
    chat_template: str | None = None
    """A file of Jinja, Jinja text, or the name of one of llama.cpp's own templates."""
    reasoning_format: Literal["none", "auto", "deepseek", "deepseek_legacy"] | None = None
    flash_attention: bool | Literal["auto"] = "auto"
    cache_type_k: CacheType | None = None
    cache_type_v: CacheType | None = None
    batch: int | None = Field(None, ge=1)
    ubatch: int | None = Field(None, ge=1)
    kv_unified: bool | None = None
    """One KV cache for all sequences together rather than an equal share for each."""
    dimensions: list[Annotated[int, Field(ge=1)]] = Field([])
    """Lengths that its embeddings may be cut to, for a Matryoshka model that does not say so itself."""
    prompt_cache: int | None = Field(None, ge=-1)
    """MiB of main memory for the prompts of past conversations; 0 none, -1 no limit. By the plan
    when left out."""
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap_mlock", "direct_io"] | None = None
    program: str | None = None
    """A llama-server of the user's own; ``packaged``: yibu's, also where another was built here."""


class LlamaCpp(Engine):
    """The engine for GGUF files; with a ``program``, that is its llama-server."""

    name: EngineName = "llama.cpp"
    formats = frozenset({"gguf"})
    serves = tr("GGUF files")
    answers: Answers = LlamaCppAnswers()
    requests: RequestTable = LLAMA_CPP_REQUESTS
    suffixes = frozenset({".gguf"})
    server: ServerCommand | None = SERVER

    def __init__(self, program: Program | None = None, devices: Sequence[Device] = ()) -> None:
        """``devices``: what the packaged build has beside the CPU, in a version that the user chose."""
        self.program = program
        self.devices = devices if program is None else program.devices

    def check(self, model: ModelConfig) -> None:
        if self.program is None and named(model) is not None:
            return  # its flags are its own, and it is asked where it is to run
        _read(model, self.program)

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        return replace(request_of(model, facts), accelerator=accelerator(self.devices))

    def with_program(self, model: ModelConfig, ask: Ask, built: Mapping[str, Path]) -> LlamaCpp:
        """The engine with the program that the entry names, or the best that was built here."""
        program = choose_program(model, ask, built)
        if (
            program is None
            and (python := built.get(environment_for(self.name, gpu=False))) is not None
        ):
            return LlamaCpp(None, devices_of_packaged(python, LAUNCHER, ask, model))
        return self if program is None else LlamaCpp(program)

    def environment(
        self,
        model: ModelConfig,  # noqa: ARG002 - the program decides
        facts: ModelFacts | None,  # noqa: ARG002
        *,
        gpu: bool,
    ) -> str | None:
        if self.program is not None:
            return self.program.environment
        return environment_for(self.name, gpu=gpu)

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        facts = self.served(model, facts)
        launch = self._packaged if self.program is None else self._own
        command, options, notes = launch(model, facts, placement)
        capabilities = _capabilities(options, facts)
        chats = "chat" in capabilities
        sees = any(word.partition("=")[0] in _SEES for word in command)
        notes += without_template(facts, chats=chats, template=options.chat_template)
        return LaunchPlan(
            engine=self.name,
            slots=placement.parallel,
            argv=command,
            env={
                # Threads that wait must not spin: on busy cores that costs nine tenths of the speed.
                "OMP_WAIT_POLICY": "passive",
                "PYTHONUNBUFFERED": "1",
                **visible_gpus(placement.gpus),
                **model.env,
            },
            capabilities=capabilities | {"vision"} if sees and chats else capabilities,
            abilities=_abilities(options, facts, sees=sees),
            environment=self.environment(model, facts, gpu=bool(placement.gpus)),
            key_variable=KEY_VARIABLE if self.program is None else OWN_KEY_VARIABLE,
            start_timeout=options.start_timeout,
            stop_grace=5.0,
            notes=tuple(notes),
        )

    def _packaged(
        self, model: ModelConfig, facts: ModelFacts, placement: Placement
    ) -> tuple[tuple[str, ...], LlamaCppOptions, list[str]]:
        """The launcher on xllamacpp, its options and notes."""
        options, read = _read(model, None)
        asked = read.fields | {"gpus": model.gpus, "gpu_layers": options.gpu_layers}
        asked |= dict.fromkeys(read.without_gpu, True)
        notes = [*read.notes, *without_gpu(asked, placement)]
        fields = _fields(options, facts, placement, notes) | read.fields
        command = (
            *("{python}", "-m", LAUNCHER, "--model", "{model}", *_file(facts)),
            *_projector(facts, fields),
            *("--host", "{host}", "--port", "{port}", "--alias", model.name),
        )
        settings = [
            word
            for field, value in sorted(fields.items())
            for word in ("--set", f"{field}={json.dumps(value, ensure_ascii=False)}")
        ]
        return (*command, *settings), options, notes

    def _own(
        self, model: ModelConfig, facts: ModelFacts, placement: Placement
    ) -> tuple[tuple[str, ...], LlamaCppOptions, list[str]]:
        """The same for a program with its own flags."""
        program = self.program
        assert program is not None
        options, read = _read(model, program)
        notes = list(read.notes)
        if (model.gpus or options.gpu_layers) and placement.offload is None:
            notes.append(tr("every layer runs on the CPU: {program}", program=_no_offload(program)))
        fields = _fields(options, facts, placement, notes) | read.fields
        file = f"{{model}}/{facts.files[0]}" if facts.files else "{model}"
        seen = {word.partition("=")[0] for word in read.words} & _PROJECTORS
        return (
            (
                "{bin}/llama-server" if program.environment else program.path,
                *("--model", file, *(() if seen else _projector(facts, {}))),
                *("--host", "{host}", "--port", "{port}", "--alias", model.name),
                *command_line(model.name, program, fields, placement),
                *read.words,
            ),
            options,
            [f"llama.cpp {program.version}: {program.path}", *notes],
        )


def _no_offload(program: Program) -> str:
    if program.devices:
        names = ", ".join(device.name for device in program.devices)
        return tr("no layer fits on {names}", names=names)
    return tr("the program lists no device that it could use (--list-devices)")


def _read(model: ModelConfig, program: Program | None) -> tuple[LlamaCppOptions, LlamaCppSettings]:
    """The options that have a name here, and llama.cpp's own fields or the program's own flags."""
    schema = LlamaCppOptions.model_fields
    read = read_settings(model, schema) if program is None else read_own(model, program, schema)
    entry = ModelConfig(name=model.name, source=model.source, options=read.options)
    options, _ = read_options(LlamaCppOptions, entry, LlamaCpp.name)
    if options.chat_template is not None:
        template = chat_template(model, options.chat_template)
        options = options.model_copy(update={"chat_template": template.text})
        if not template.jinja:
            read.fields.setdefault("use_jinja", False)
    for field, value in read.fields.items():
        _check(model, field, value)
    return options, read


def _file(facts: ModelFacts) -> tuple[str, ...]:
    """The file of a directory to load: the first part of a split model, as the planner read it."""
    return ("--file", facts.files[0]) if facts.files else ()


def _projector(facts: ModelFacts, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The vision projector among the model's files, unless the user names one or wants none."""
    chosen = fields.get("mmproj.path") or fields.get("no_mmproj")
    return ("--mmproj", "{mmproj}") if facts.projector_bytes and not chosen else ()


def _fields(
    options: LlamaCppOptions, facts: ModelFacts, placement: Placement, notes: list[str]
) -> dict[str, Any]:
    """CommonParams fields for our options and the planner's placement."""
    context = placement.context or options.context or facts.max_context or _DEFAULT_CONTEXT
    unified = options.kv_unified
    fields: dict[str, Any] = {
        "n_parallel": placement.parallel,
        # The total: llama.cpp divides it among the sequences, unless they share one cache.
        "n_ctx": context * placement.parallel,
        "cpuparams.n_threads": placement.threads,
        "cpuparams_batch.n_threads": placement.threads,
        # A connection that streams or is kept alive holds a thread: readiness needs one more.
        "n_threads_http": placement.parallel + _HTTP_THREADS_SPARE,
        "cache_ram_mib": _prompt_cache(options, placement),
        "endpoint_metrics": True,
        "endpoint_slots": False,
        "ui": False,
        **_gpu_fields(placement.offload),
    }
    if options.flash_attention != "auto":
        fields["flash_attn_type"] = "enabled" if options.flash_attention else "disabled"
    pooling, ubatch = options.pooling, options.ubatch
    batch = options.batch
    if options.embeddings or facts.pooling or pooling is not None:
        fields["embedding"] = True
        # An input is embedded in one step, or refused: the step holds the longest.
        ubatch = ubatch or context
        batch = batch or max(ubatch, _DEFAULT_BATCH)
        if unified is None:
            # With a cache for each sequence, several texts in one request get other vectors than
            # each alone.
            unified = True
        if pooling is None and not facts.pooling:
            pooling = "mean"
            notes.append(
                tr("embeddings: pooling is mean, because this model names none of its own")
            )
    if unified:
        fields["kv_unified_per_slot"] = context
    renamed = {
        "pooling_type": pooling,
        "chat_template": options.chat_template,
        "reasoning_format": options.reasoning_format,
        "cache_type_k": options.cache_type_k,
        "cache_type_v": options.cache_type_v,
        "n_batch": batch,
        "n_ubatch": ubatch,
        "kv_unified": unified,
        "load_mode": options.load_mode,
    }
    return fields | {field: value for field, value in renamed.items() if value is not None}


def _gpu_fields(offload: Offload | None) -> dict[str, Any]:
    """What goes to GPUs, as it was planned: llama.cpp's own fitting would load the model once more. Of
    a mixture it has to, for which experts stay in main memory cannot be said as a field."""
    if offload is None:
        return {"n_gpu_layers": 0, "fit_params": False}
    if offload.cpu_moe:
        return {"fit_params": True}
    whole = offload.gpu_layers == offload.layers
    fields = {"n_gpu_layers": ALL if whole else offload.gpu_layers, "fit_params": False}
    return fields | ({"tensor_split": list(offload.split)} if len(offload.split) > 1 else {})


def _prompt_cache(options: LlamaCppOptions, placement: Placement) -> int:
    if options.prompt_cache is not None:
        return options.prompt_cache
    planned = placement.prompt_cache
    return _PROMPT_CACHE_MIB if planned is None else planned // MIB


def _capabilities(options: LlamaCppOptions, facts: ModelFacts) -> frozenset[Capability]:
    if options.pooling == "rank":
        return frozenset({"rerank"})
    if facts.pooling:
        return frozenset({"embeddings", "tokenize"})
    embeds = options.embeddings or options.pooling is not None
    text: frozenset[Capability] = frozenset(
        {"chat", "completions", "responses", "messages", "tokenize"}
    )
    return text | {"embeddings"} if embeds else text


def _abilities(options: LlamaCppOptions, facts: ModelFacts, *, sees: bool) -> Abilities:
    takes = facts.template_takes_tools
    if options.chat_template is not None:  # of llama.cpp's own, named ones none takes tools
        takes = takes_tools(options.chat_template)
    named = next(
        (v for key, v in facts.details.items() if key.endswith(".matryoshka_dimensions")), ()
    )
    tokens = facts.details.get("tokenizer.ggml.tokens")
    return Abilities(
        features=frozenset(({"tools"} if takes else set()) | ({IMAGES} if sees else set())),
        dimensions=tuple(options.dimensions or named),
        vocabulary=tokens.length if isinstance(tokens, ArrayLength) else None,
    )


_PYTHON: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (int, float), "str": (str,),
    "list": (list,), "set": (list,), "dict": (dict,),
}  # fmt: skip


def _check(model: ModelConfig, field: str, value: Any) -> None:
    """Check a value against the field's kind, before a process is started with it."""
    kind = FIELDS[field]
    if kind.startswith("<"):
        words = kind.partition(": ")[2].rstrip(">").split()
        fits = isinstance(value, str) and value.lower() in words
        wanted = tr("one of {words}", words=", ".join(words))
    else:
        fits = isinstance(value, _PYTHON[kind]) and (kind == "bool") == isinstance(value, bool)
        wanted = tr("of type {kind}", kind=kind)
    if not fits:
        raise ConfigError(
            "model {model!r}: llama.cpp's {field!r} has to be {wanted}, found {value!r}",
            model=model.name,
            field=field,
            wanted=wanted,
            value=value,
        )

"""llama-server's flags as a request to the planner."""

from __future__ import annotations

from yibu.config import ModelConfig
from yibu.engines.flags import Given
from yibu.engines.llama_cpp.server import SERVER, sequence_context
from yibu.engines.llama_cpp.table import ALL, FIELD_OPTIONS, TABLE
from yibu.errors import YibuError
from yibu.paths import at_home
from yibu.planner.arithmetic import MIB, kv_element_bytes
from yibu.planner.facts import read_facts
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts

_ALIASES = {**SERVER.options, **FIELD_OPTIONS}


def request_of(model: ModelConfig, facts: ModelFacts | None) -> Request:
    """Raises ConfigError where a value is not of the type it must have."""
    given = Given.of(model, TABLE, _ALIASES)
    parallel = given.number("parallel", open_words=("auto", "-1", "0"))
    context = given.number("context")
    if context is None and (total := given.number("ctx_size")):
        parallel = parallel or 1
        context = sequence_context(total, parallel, unified=given.switch("kv_unified"))
    past = given.number("cache_ram")
    return Request(
        name=model.name,
        rule="slots",
        facts=facts,
        context=context or None,
        parallel=parallel,
        threads=given.number("threads"),
        kv_dtype=_larger(given.text("cache_type_k"), given.text("cache_type_v")),
        gpus=model.gpus,
        memory=model.memory,
        batched=given.number("ubatch_size"),
        embeds=bool(facts and facts.pooling)
        or given.switch("embeddings")
        or given.switch("reranking")
        or given.text("pooling") is not None,
        prompt_cache=None if past is None else past * MIB,
        replicas=model.replicas,
        gpu_layers=_layers(given, "n_gpu_layers"),
        cpu_moe=ALL if given.switch("cpu_moe") else _layers(given, "n_cpu_moe"),
        draft=_draft(given.text(TABLE.name("model_draft")[0])),
    )


def _layers(given: Given, name: str) -> int | None:
    """A number of layers; more than any model has where all are asked for."""
    if str(given.values.get(name)).lower() in ("all", "-2"):
        return ALL
    return given.number(name)


def _draft(path: str | None) -> ModelFacts | None:
    """The facts of a draft model that is on this disk; llama.cpp itself says what is wrong with one."""
    if path is None or not (file := at_home(path)).is_file():
        return None
    try:
        return read_facts(file)
    except YibuError:
        return None


def _larger(keys: str | None, values: str | None) -> str | None:
    """The type to count a cache with whose keys and values may be stored in two."""
    if keys is None and values is None:
        return None
    return max(keys or "f16", values or "f16", key=kv_element_bytes)

"""What llama-server's flags ask of the planner."""

from __future__ import annotations

from yibu.config import ModelConfig
from yibu.engines.flags import Given
from yibu.engines.llama_cpp.server import FIELD_OPTIONS, OPTIONS, sequence_context
from yibu.engines.llama_cpp.table import TABLE
from yibu.planner.arithmetic import MIB, kv_element_bytes
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts

_ALIASES = {**OPTIONS, **FIELD_OPTIONS}


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
    )


def _larger(keys: str | None, values: str | None) -> str | None:
    """The type to count a cache with whose keys and values may be stored in two."""
    if keys is None and values is None:
        return None
    return max(keys or "f16", values or "f16", key=kv_element_bytes)

"""Flags of older vLLM versions and what became of them, so that last year's scripts still run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from yibu.messages import tr


@dataclass(frozen=True, slots=True)
class Translation:
    """What to write instead of a flag that vLLM no longer has, and the sentence that says so."""

    note: str
    words: Callable[[Sequence[str]], list[str]]
    """The flag's values → the new words; none at all when it is to be left out."""


def _dropped(why: str) -> Translation:
    return Translation(tr("left out, {why}", why=why), lambda _: [])


def _renamed(flag: str) -> Translation:
    return Translation(tr("renamed to {flag}", flag=flag), lambda values: [flag, *values])


def _json(flag: str, key: str, convert: Callable[[str], object] = str) -> Translation:
    return Translation(
        tr("is now part of {flag}", flag=flag),
        lambda values: [flag, json.dumps({key: convert(values[0])})] if values else [],
    )


def _task(values: Sequence[str]) -> list[str]:
    match values[0] if values else "":
        case "embed" | "embedding":
            return ["--runner", "pooling", "--convert", "embed"]
        case "classify" | "score" | "reward":
            return ["--runner", "pooling", "--convert", "classify"]
        case "generate" | "transcription":
            return ["--runner", "generate"]
        case _:
            return []


_V1 = tr("because vLLM's engine since 0.11 always works that way, or no longer at all")

TRANSLATIONS: Mapping[str, Translation] = MappingProxyType(
    {
        "disable_log_requests": _dropped(tr("because requests are not logged unless asked for")),
        "enable_reasoning": _dropped(tr("because --reasoning-parser alone turns reasoning on")),
        "guided_decoding_backend": _json("--structured-outputs-config", "backend"),
        "task": Translation(tr("is now --runner and --convert"), _task),
        "rope_scaling": _json("--hf-overrides", "rope_scaling", json.loads),
        "rope_theta": _json("--hf-overrides", "rope_theta", float),
        "override_pooler_config": _renamed("--pooler-config"),
        "cuda_graph_sizes": _renamed("--cudagraph-capture-sizes"),
        "max_seq_len_to_capture": _dropped(tr("because graphs are captured by batch size now")),
        "max_context_len_to_capture": _dropped(tr("because graphs are captured by batch size now")),
        "worker_use_ray": Translation(
            tr("is now --distributed-executor-backend ray"),
            lambda _: ["--distributed-executor-backend", "ray"],
        ),
        "engine_use_ray": _dropped(_V1),
        "device": _dropped(tr("because the installed build decides the device")),
        "swap_space": _dropped(_V1),
        "use_v2_block_manager": _dropped(_V1),
        "num_scheduler_steps": _dropped(_V1),
        "multi_step_stream_outputs": _dropped(_V1),
        "preemption_mode": _dropped(_V1),
        "num_lookahead_slots": _dropped(_V1),
        "scheduler_delay_factor": _dropped(_V1),
        "disable_async_output_proc": _dropped(_V1),
        "disable_frontend_multiprocessing": _dropped(_V1),
        "tokenizer_pool_size": _dropped(_V1),
        "tokenizer_pool_type": _dropped(_V1),
        "enable_prompt_adapter": _dropped(tr("because prompt adapters are no longer supported")),
        "disable_mm_preprocessor_cache": Translation(
            tr("is now --mm-processor-cache-gb 0"), lambda _: ["--mm-processor-cache-gb", "0"]
        ),
    }
)
"""By the old flag's name, with underscores."""

OLD_SWITCHES = frozenset(
    {"disable_log_requests", "enable_reasoning", "worker_use_ray", "engine_use_ray",
     "use_v2_block_manager", "disable_async_output_proc", "disable_frontend_multiprocessing",
     "enable_prompt_adapter", "disable_mm_preprocessor_cache"}
)  # fmt: skip
"""Those of them that took no value."""

"""How a bare vLLM is started, which of its flags are about the gateway here, and what became of flags of
older versions, so that last year's scripts still run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yibu.engines.flags import whole
from yibu.engines.servers import FlagTranslation, server_command
from yibu.engines.vllm.table import PINNED
from yibu.messages import tr


def _dropped(why: str, *, switch: bool = False) -> FlagTranslation:
    return FlagTranslation(tr("left out, {why}", why=why), switch=switch)


def _renamed(flag: str) -> FlagTranslation:
    return FlagTranslation(tr("renamed to {flag}", flag=flag), lambda values: [flag, *values])


def _json(flag: str, key: str, convert: Callable[[str], object] = str) -> FlagTranslation:
    return FlagTranslation(
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
_SIZES = tr("because graphs are captured by batch size now")

TRANSLATIONS: Mapping[str, FlagTranslation] = {
    "disable_log_requests": _dropped(
        tr("because requests are not logged unless asked for"), switch=True
    ),
    "enable_reasoning": _dropped(
        tr("because --reasoning-parser alone turns reasoning on"), switch=True
    ),
    "guided_decoding_backend": _json("--structured-outputs-config", "backend"),
    "task": FlagTranslation(tr("is now --runner and --convert"), _task),
    "rope_scaling": _json("--hf-overrides", "rope_scaling", json.loads),
    "rope_theta": _json("--hf-overrides", "rope_theta", float),
    "override_pooler_config": _renamed("--pooler-config"),
    "cuda_graph_sizes": _renamed("--cudagraph-capture-sizes"),
    "max_seq_len_to_capture": _dropped(_SIZES),
    "max_context_len_to_capture": _dropped(_SIZES),
    "worker_use_ray": FlagTranslation(
        tr("is now --distributed-executor-backend ray"),
        lambda _: ["--distributed-executor-backend", "ray"],
        switch=True,
    ),
    "device": _dropped(tr("because the installed build decides the device")),
    "enable_prompt_adapter": _dropped(
        tr("because prompt adapters are no longer supported"), switch=True
    ),
    "disable_mm_preprocessor_cache": FlagTranslation(
        tr("is now --mm-processor-cache-gb 0"),
        lambda _: ["--mm-processor-cache-gb", "0"],
        switch=True,
    ),
    **dict.fromkeys(
        (
            "swap_space",
            "num_scheduler_steps",
            "multi_step_stream_outputs",
            "preemption_mode",
            "num_lookahead_slots",
            "scheduler_delay_factor",
            "tokenizer_pool_size",
            "tokenizer_pool_type",
        ),
        _dropped(_V1),
    ),
    **dict.fromkeys(
        (
            "engine_use_ray",
            "use_v2_block_manager",
            "disable_async_output_proc",
            "disable_frontend_multiprocessing",
        ),
        _dropped(_V1, switch=True),
    ),
}
"""By the old flag's name, with underscores."""


def _adopted(options: dict[str, Any]) -> dict[str, Any]:
    """``context`` and ``parallel`` as numbers; a length that vLLM would choose is left to the plan."""
    for name in SERVER.options:
        if name not in options:
            continue
        if str(options[name]).lower() in ("auto", "-1"):
            del options[name]
        else:
            options[name] = whole(options[name])
    return options


SERVER = server_command("vllm", PINNED, translations=TRANSLATIONS, adopt_options=_adopted)

"""vLLM's sleep mode: https://docs.vllm.ai/en/latest/features/sleep_mode.html.

Level 1 keeps the weights in main memory. Level 2 drops them, and they are read from disk again; of
some models (quantized ones, drafts, some with pictures) vLLM does not read back all that it
dropped, and then answers nonsense, so that it is used only where it is asked for.

The routes come with vLLM's development mode, whose others can change weights and call any method of
the workers, and vLLM's key guards ``/v1`` alone: ``yibu.launchers.vllm_guard`` asks for it everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from yibu.config import ModelConfig
from yibu.engines.flags import FlagTable
from yibu.engines.sleep import SleepCall, SleepLevel, SleepPlan
from yibu.planner.types import ModelFacts, Placement

ENVIRONMENT: Mapping[str, str] = {"VLLM_SERVER_DEV_MODE": "1"}
_FLAG = "enable_sleep_mode"
_GUARD = "yibu.launchers.vllm_guard.KeyEverywhere"
_LEVEL_2 = (
    SleepCall("/wake_up?tags=weights"),
    SleepCall("/collective_rpc", {"method": "reload_weights"}),
    SleepCall("/wake_up?tags=kv_cache"),
    SleepCall("/reset_prefix_cache"),
)
_NOT_AT_2 = frozenset({"speculative_config", "speculative_model", "enable_lora"})
"""Flags with which vLLM does not reload everything that level 2 dropped."""


def sleep_plan(
    model: ModelConfig,
    facts: ModelFacts,
    placement: Placement,
    names: Collection[str],
    table: FlagTable,
) -> SleepPlan | None:
    """How this engine can sleep; None: it cannot, or need not. ``names`` are the user's flags."""
    fits = placement.gpus and {_FLAG, "middleware"} <= table.flags.keys() and not facts.pooling
    allocator = " ".join(
        model.env.get(name, "") for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    )
    if not fits or not model.on_demand or model.sleep == "off" or "expandable" in allocator:
        return None
    memory = placement.need.weights * len(placement.gpus)
    levels = [SleepLevel(1, memory, (SleepCall("/sleep?level=1"),), (SleepCall("/wake_up"),))]
    if model.sleep == "2" and facts.quantization is None and not _NOT_AT_2.intersection(names):
        levels = [SleepLevel(2, 0, (SleepCall("/sleep?level=2"),), _LEVEL_2)]
    same = {"model": model.name, "prompt": "1, 2, 3, 4,", "max_tokens": 16, "temperature": 0}
    return SleepPlan(
        tuple(levels), "/is_sleeping", "is_sleeping", SleepCall("/v1/completions", same)
    )


def sleep_flags(names: Collection[str]) -> list[str]:
    """The flags of an engine that can sleep."""
    return [*([] if _FLAG in names else ["--enable-sleep-mode"]), "--middleware", _GUARD]

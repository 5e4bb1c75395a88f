"""The lines of the engines' logs with which the phases of their starts begin.

vLLM's wordings are those of 0.32: «Capturing CUDA graphs», «Starting torch.compile» and the
tuning of kernels were read in its source, the others in its log.
"""

from __future__ import annotations

import re

from yibu.engines.base import PhaseMark

VLLM_PHASES: tuple[PhaseMark, ...] = (
    PhaseMark("load", re.compile(r"Starting to load model |Loading [\w ]*checkpoint shards: +0% ")),
    PhaseMark(
        "compile",
        re.compile(
            r"Starting torch\.compile|Dynamo bytecode transform time|Warming up model for the "
            r"compilation|Directly load AOT compilation"
        ),
    ),
    PhaseMark(
        "warm-up",
        re.compile(
            r"Initial profiling/warmup run took|[CG]PU KV cache size: |JIT kernel warmup starting|"
            r"Capturing CUDA graphs"
        ),
    ),
)

LLAMA_CPP_PHASES: tuple[PhaseMark, ...] = (
    PhaseMark("load", re.compile(r"load_model: loading model '")),
    PhaseMark("warm-up", re.compile(r"load_model: initializing, n_slots|warming up the model")),
)

SPEECH_PHASES: tuple[PhaseMark, ...] = (
    PhaseMark("load", re.compile(r"yibu\.speech\.server listening on \S+, loading ")),
    PhaseMark("warm-up", re.compile(r"yibu\.speech\.engine loaded, warming up")),
)

"""The lines of vLLM's log with which the phases of its start begin.

The wordings are those of 0.32: «Capturing CUDA graphs», «Starting torch.compile» and the tuning of
kernels were read in its source, the others in its log.
"""

from __future__ import annotations

import re

from yibu.engines.base import PhaseMark

PHASES: tuple[PhaseMark, ...] = (
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

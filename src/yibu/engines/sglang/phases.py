"""The lines of SGLang's log with which the phases of its start begin, read in its source (0.5.23:
``model_executor/``, ``mem_cache/kv_cache_configurator.py``)."""

from __future__ import annotations

import re

from yibu.engines.base import PhaseMark

PHASES: tuple[PhaseMark, ...] = (
    PhaseMark("load", re.compile(r"Load weight begin\.|Loading [\w ]*checkpoint shards: +0% ")),
    PhaseMark(
        "warm-up",
        re.compile(r"Load weight end\.|Memory pool end\.|Capture [\w -]+ begin\. |JIT .*warmup"),
    ),
)

"""The lines of LMDeploy's log with which the phases of its start begin, read in its source (0.18:
``turbomind/checkpoint.py``, ``pytorch/weight_loader``, ``serve/openai/api_server.py``)."""

from __future__ import annotations

import re

from yibu.engines.base import PhaseMark

PHASES: tuple[PhaseMark, ...] = (
    PhaseMark("load", re.compile(r"Loading(?: weights from safetensors)?: +\d+%")),
    PhaseMark(
        "warm-up", re.compile(r"HINT: +Please open |Started server process|Object cache budget: ")
    ),
)

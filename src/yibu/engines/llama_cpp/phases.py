"""The lines of llama.cpp's log with which the phases of its start begin."""

from __future__ import annotations

import re

from yibu.engines.base import PhaseMark

PHASES: tuple[PhaseMark, ...] = (
    PhaseMark("load", re.compile(r"load_model: loading model '")),
    PhaseMark("warm-up", re.compile(r"load_model: initializing, n_slots|warming up the model")),
)

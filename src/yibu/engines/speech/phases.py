"""The lines of the speech engine's log with which the phases of its start begin."""

from __future__ import annotations

import re

from yibu.engines.base import PhaseMark

PHASES: tuple[PhaseMark, ...] = (
    PhaseMark("load", re.compile(r"yibu\.speech\.server listening on \S+, loading ")),
    PhaseMark("warm-up", re.compile(r"yibu\.speech\.engine loaded, warming up")),
)

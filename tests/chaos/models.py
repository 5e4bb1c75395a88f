"""The models of a chaos run that its own engine serves."""

from __future__ import annotations

import sys
from typing import Any

from tests.e2e.home import REPOSITORY

CALM, WILD = "calm", "wild"
"""One model's engine is never harmed, so whatever goes wrong there is the gateway's doing; the
other's are killed and stopped, by events and by prompts, and have to come back."""
REPLICAS = {CALM: 1, WILD: 2}
CAPACITY, QUEUE = 12, 64
"""Requests that one replica works on at once, and that may wait for a model."""


def model_entry(
    name: str, mark: str = "", words: tuple[str, ...] = (), **changes: Any
) -> dict[str, Any]:
    words = [sys.executable, "-S", "-m", "tests.chaos.engine", "--port", "{port}", *words]
    options = {"command": words, "served_name": "chaos", "stop_grace": 2, "start_timeout": 60}
    return {
        "name": name, "engine": "command", "options": options, "replicas": REPLICAS[name],
        "env": {"PYTHONPATH": str(REPOSITORY), "CHAOS_MARK": mark}, "memory": 64 << 20,
        "max_concurrency": CAPACITY, "max_queue": QUEUE, **changes,
    }  # fmt: skip

"""A model as ``yibu ps --json`` shows it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from yibu.node.fleet.deployment import Deployment
from yibu.node.machine import processes


def model_status(
    deployment: Deployment, table: Mapping[int, processes.ProcessInfo], queued: int
) -> dict[str, Any]:
    """``table`` is the machine's processes; ``queued``: requests that wait for the model."""
    plan = deployment.spec.plan if deployment.spec else None
    return {
        "name": deployment.name,
        "source": deployment.config.source,
        "engine": plan.engine if plan else deployment.config.engine,
        "state": deployment.state,
        "cause": deployment.cause,
        "hint": deployment.hint or None,
        "phase": deployment.phase,
        "phases": _rounded(deployment.phases),
        "queued": queued,
        "replicas": [
            {
                "id": replica.id,
                "pid": replica.process.pid if replica.process else None,
                "port": replica.port,
                "state": replica.state,
                "restarts": replica.restarts,
                "rss_bytes": replica.process.rss_bytes(table) if replica.process else 0,
                "gpus": list(replica.spec.gpus),
                "phase": replica.timeline.current,
                "phases": _rounded(replica.timeline.seconds(time.monotonic())),
            }
            for _, replica in sorted(deployment.replicas.items())
        ],
    }


def _rounded(phases: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in phases.items()}

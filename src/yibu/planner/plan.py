"""Which model goes where, with what, and why."""

from __future__ import annotations

from collections.abc import Sequence

from yibu.planner import cpu
from yibu.planner.request import Request
from yibu.planner.types import Machine, ModelPlan


def plan(models: Sequence[Request], machine: Machine) -> list[ModelPlan]:
    """Plan models on a machine, together: what one takes is gone for the next.

    Models are placed in the order given; nothing is moved or evicted. The result has the same
    order.
    """
    left = machine.memory_available - cpu.reserve(machine)
    sharing = len(models)
    plans = []
    for request in models:
        result = cpu.place(request, machine, left, sharing)
        if result.placement is not None:
            left -= result.placement.need.total * request.replicas
        plans.append(result)
    return plans

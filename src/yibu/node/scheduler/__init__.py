"""The scheduler: which replicas start, stop and wait, and which replica answers a request.

Pure: :class:`Scheduler` is told what happened (events) and calls what is to be done (effects). It
reads no clock, starts no task and touches no process; ``yibu.node.fleet.fleet`` carries its effects out.
"""

from yibu.node.scheduler.scheduler import Scheduler
from yibu.node.scheduler.types import (
    Effects,
    Generation,
    Holding,
    Reading,
    Waiter,
)

__all__ = [
    "Effects",
    "Generation",
    "Holding",
    "Reading",
    "Scheduler",
    "Waiter",
]

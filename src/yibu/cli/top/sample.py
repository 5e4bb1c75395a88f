"""Readings of the node that runs here, as ``yibu top`` takes them: through its control socket and its metrics page."""

from __future__ import annotations

import time

from yibu.cli.connect import access
from yibu.gateway.monitoring.readings import Sampler as Readings
from yibu.gateway.monitoring.readings import Snapshot
from yibu.management.context import Context
from yibu.node.machine import hardware


class Sampler:
    """``take`` reads everything. Blocking, for two seconds at most per engine that does not answer."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._context = context
        self._readings = Readings()

    def take(self) -> Snapshot:
        """Everything now; rates are zero at the first call.

        Raises:
            NotRunningError: no node runs.
            YibuError: it does not answer.
        """
        status = self._client.call("ps")
        gpus = hardware.gpus()
        busy = hardware.gpus_busy() if gpus else {}
        return self._readings.take(status, self._page(), gpus, busy)

    def _page(self) -> str:
        reach = access(self._context)
        # A gateway that listens later (`adopt --replace`) has no page yet.
        return reach.api.text("/metrics") if reach.url else ""


def measure(context: Context, seconds: float) -> Snapshot:
    """One snapshot, with what happened in so many seconds before it. Raises NotRunningError."""
    sampler = Sampler(context)
    sampler.take()
    time.sleep(seconds)
    return sampler.take()

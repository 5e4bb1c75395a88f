"""The real node with short waits, for chaos: ``python -m tests.chaos.node PORT REQUEST_TIMEOUT``."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from tests.chaos import stalls
from tests.chaos.timings import TIMINGS
from yibu import daemon, log, sockets
from yibu.config import GatewayConfig
from yibu.config.settings import GatewaySettings
from yibu.node.handover.holder_link import HolderLink
from yibu.paths import Paths


def main() -> None:
    log.configure()
    handed = sockets.handed(os.environ)
    env = dict(os.environ)
    config = GatewayConfig(
        port=int(sys.argv[1]), request_timeout=float(sys.argv[2]), drain_timeout=5.0
    )
    settings = GatewaySettings(config)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        link = HolderLink(*handed["holder"])
        serving = daemon.serve(
            Paths.from_env(env), settings, env, TIMINGS, link=link, handed=handed
        )
        runner.run(_watched(serving))


async def _watched(serving: Coroutine[Any, Any, None]) -> None:
    watch = asyncio.create_task(stalls.watch())
    try:
        await serving
    finally:
        watch.cancel()


if __name__ == "__main__":
    main()

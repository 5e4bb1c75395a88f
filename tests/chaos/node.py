"""The real node with short waits, for chaos: ``python -m tests.chaos.node PORT REQUEST_TIMEOUT``."""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop

from yibu import daemon, log, sockets
from yibu.config import GatewayConfig
from yibu.node.holder_link import HolderLink
from yibu.node.timings import Timings
from yibu.paths import Paths

TIMINGS = Timings(
    adopt=5.0,
    orphan_grace=0.5,
    drain=5.0,
    health_every=0.5,
    health_request=2.0,
    stall=20.0,
    backoff_first=0.1,
    backoff_cap=0.5,
    failure_limit=1_000_000,
    healthy_after=1.0,
)


def main() -> None:
    log.configure()
    handed = sockets.handed(os.environ)
    env = dict(os.environ)
    config = GatewayConfig(
        port=int(sys.argv[1]), request_timeout=float(sys.argv[2]), drain_timeout=5.0
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        link = HolderLink(*handed["holder"])
        runner.run(
            daemon.serve(Paths.from_env(env), config, env, TIMINGS, link=link, handed=handed)
        )


if __name__ == "__main__":
    main()

"""The real node, but quick to suspect an engine and to give a replica up:
``python -m tests.e2e.impatient_node``.

A test cannot wait the minutes that a real one takes for that.
"""

from __future__ import annotations

import asyncio
import os

from yibu import daemon, log
from yibu.config import GatewayConfig
from yibu.config.settings import GatewaySettings
from yibu.node.timings import Timings
from yibu.paths import Paths

TIMINGS = Timings(health_every=1.0, stall=3.0, canary=10.0, scale_down=5.0)


def main() -> None:
    log.configure()
    env = dict(os.environ)
    asyncio.run(
        daemon.serve(Paths.from_env(env), GatewaySettings(GatewayConfig(port=0)), env, TIMINGS)
    )


if __name__ == "__main__":
    main()

"""A whole node as a process of its own, with fake engines: ``python -m tests.node.node_process``.

What the daemon wires in the real thing, less hub, hardware and gateway; killed, doubled and
signalled by test_node.py. An argument is the seconds that an engine has to be adopted in.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.node.support import QUICK, NoGpu, fake_deployer
from yibu import log
from yibu.config import GatewayConfig
from yibu.config.settings import GatewaySettings
from yibu.errors import YibuError
from yibu.node.control.control import GatewayHandle
from yibu.node.fleet.fleet import Fleet
from yibu.node.node import Node
from yibu.paths import Paths


@asynccontextmanager
async def no_gateway(fleet: Fleet) -> AsyncIterator[GatewayHandle]:
    yield GatewayHandle("http://127.0.0.1:1")


def main() -> None:
    log.configure()
    node = Node(
        paths=Paths.from_env(os.environ),
        deployer=fake_deployer(),
        gateway=no_gateway,
        prepare=lambda: None,
        env=dict(os.environ),
        timings=dataclasses.replace(QUICK, adopt=float(sys.argv[1])),
        settings=GatewaySettings(GatewayConfig(drain_timeout=5)),
        gpu_memory=NoGpu(),
    )
    try:
        asyncio.run(node.run())
    except YibuError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

"""The gateway's application under a server as that server comes: uvicorn with httptools or with
h11, granian. Key, validation, metrics and log are on, as in ``ours.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
import uvloop
from ours import KEY, OneReplica

from yibu.config import GatewayConfig
from yibu.gateway import collector
from yibu.gateway.app import create_app
from yibu.gateway.deps import GatewayDeps
from yibu.log import configure


async def main(server: str, port: int, upstream: int, log: Path) -> None:
    with log.open("w") as stream:
        configure(stream=stream)
        backend = OneReplica(upstream, conforming=True)
        app = create_app(GatewayDeps(backend, GatewayConfig(port=port), (KEY,)))
        app.surface()
        collector.settle()
        if server == "granian":
            from granian.constants import Interfaces
            from granian.server.embed import Server

            await Server(app, port=port, interface=Interfaces.ASGI, log_access=False).serve()
        else:
            config = uvicorn.Config(
                app, port=port, http=server, access_log=False, log_config=None, ws="none"
            )
            await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))

"""yibu's gateway in front of one upstream, with everything on: key, validation, metrics, log."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from yibu.config import GatewayConfig
from yibu.engines.base import Endpoint
from yibu.gateway import collector
from yibu.gateway.app import create_app
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.server import GatewayServer
from yibu.log import configure
from yibu.routing import ReplicaStatus, Route

KEY = "benchmark-key"


class OneReplica:
    def __init__(self, port: int, *, conforming: bool) -> None:
        capabilities = frozenset({"chat"})
        self._route = Route("bench", "command", capabilities, conforming, 0, state="ready")
        self._endpoint = Endpoint("bench-0", "127.0.0.1", port, key="inner")

    def routes(self) -> Sequence[Route]:
        return [self._route]

    def route(self, model: str) -> Route | None:
        return self._route if model == "bench" else None

    def replicas(self) -> Sequence[ReplicaStatus]:
        """Nobody asks for metrics here."""
        return []

    async def ensure_ready(self, _model: str, *, exclude: frozenset[str] = frozenset()) -> Endpoint:  # noqa: ARG002  (the protocol's name)
        return self._endpoint

    def progress(self, endpoint: Endpoint) -> None:
        """Nobody supervises here."""

    def done(self, endpoint: Endpoint, *, failed: bool = False) -> None:
        pass


async def main(port: int, upstream: int, log: Path, *, conforming: bool) -> None:
    with log.open("w") as stream:
        configure(stream=stream)
        backend = OneReplica(upstream, conforming=conforming)
        deps = GatewayDeps(backend, GatewayConfig(port=port), (KEY,))
        app = create_app(deps)
        async with GatewayServer(app):
            # As yibu.daemon does once it listens.
            app.surface()
            collector.settle()
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(
        main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), conforming=sys.argv[4] == "yes")
    )

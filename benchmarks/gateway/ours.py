"""yibu's gateway in front of one upstream, with everything on: key, validation,
metrics, log, usage; limits for one candidate."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from yibu.accounts.live import LiveAccounts
from yibu.accounts.secret import digest_of, new_salt, prefix_of
from yibu.accounts.store import AccountStore
from yibu.accounts.types import Account, TokenBudget
from yibu.config import GatewayConfig
from yibu.config.types import Limits
from yibu.engines.base import Endpoint
from yibu.gateway import collector
from yibu.gateway.app import create_app
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.server import GatewayServer
from yibu.log import configure
from yibu.routing import ReplicaStatus, Route

KEY = "benchmark-key"


class Granted:
    """A lease that nobody has to wait for."""

    waits = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def granted(self) -> None:
        """It is."""

    def progress(self) -> None:
        """Nobody supervises here."""

    def release(self, *, failed: bool = False) -> None:
        pass


class OneReplica:
    def __init__(self, port: int, *, conforming: bool) -> None:
        capabilities = frozenset({"chat"})
        self._route = Route("bench", "command", capabilities, conforming, 0, state="ready")
        self._lease = Granted(Endpoint("bench-0", "127.0.0.1", port, key="inner"))

    def routes(self) -> Sequence[Route]:
        return [self._route]

    def route(self, model: str) -> Route | None:
        return self._route if model == "bench" else None

    def replicas(self) -> Sequence[ReplicaStatus]:
        """Nobody asks for metrics here."""
        return []

    def acquire(self, _model: str, **_how: object) -> Granted:
        return self._lease


def add_account(path: Path) -> None:
    """The load's key as one of the database's, with every limit, none of which is reached."""
    limits = Limits(rpm=10**9, tpm=10**12, concurrency=10**6)
    with AccountStore.open(path) as store:
        store.add(
            Account("bench", models=("bench",), limits=limits, budget=TokenBudget(10**15, "day"))
        )
        salt = new_salt()
        digest = digest_of(KEY.encode(), salt)
        changed = (prefix_of(KEY.encode()).decode(), salt, digest)
        store.connection.execute("UPDATE secret SET prefix = ?, salt = ?, digest = ?", changed)


async def main(port: int, upstream: int, log: Path, *, conforming: bool, limited: bool) -> None:
    with log.open("w") as stream:
        configure(stream=stream)
        backend = OneReplica(upstream, conforming=conforming)
        database = log.with_suffix(".db")
        if limited:
            add_account(database)
        accounts = LiveAccounts(database)
        keys = () if limited else (KEY,)
        app = create_app(GatewayDeps(backend, GatewayConfig(port=port), keys, accounts))
        async with accounts.running():
            await GatewayServer(app).start()
            # As yibu.daemon does once it listens.
            app.surface()
            collector.settle()
            await asyncio.Event().wait()


if __name__ == "__main__":
    how = {"conforming": sys.argv[4] != "no", "limited": sys.argv[4] == "limited"}
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), **how))

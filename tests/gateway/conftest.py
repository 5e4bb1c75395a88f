"""A gateway on a real socket over a backend of plain data."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest

from yibu.accounts.live import LiveAccounts
from yibu.config import GatewayConfig
from yibu.engines.base import Capability, Endpoint
from yibu.errors import NotReadyError, RequestError
from yibu.gateway.app import Gateway, create_app
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.monitoring.tracing import Tracing
from yibu.gateway.server import GatewayServer
from yibu.routing import ReplicaStatus, Route

from .upstream import Upstream

TEXT: frozenset[Capability] = frozenset({"chat", "completions", "embeddings", "tokenize"})
SPEECH: frozenset[Capability] = frozenset({"transcriptions", "translations"})


@dataclass
class FakeBackend:
    """The node as the gateway sees it: routes and replicas, and what the gateway told of them."""

    known: dict[str, Route] = field(default_factory=dict)
    endpoints: dict[str, list[Endpoint]] = field(default_factory=dict)
    statuses: list[ReplicaStatus] = field(default_factory=list)
    """Further replicas than those that ``add`` made."""
    in_flight: int = 0
    finished: list[tuple[str, bool]] = field(default_factory=list)
    free: asyncio.Event | None = None
    """Replicas are given once it is set; None: at once."""
    refusal: RequestError | None = None
    """Instead of that."""
    waiting: int = 0
    asked: dict[str, Any] = field(default_factory=dict)
    """How the latest request asked for a replica."""

    def add(self, model: str, *upstreams: Upstream, **fields: Any) -> None:
        served = fields.pop("served_name", None)
        route = Route(model, "llama.cpp", TEXT, conforming=False, created=1, state="ready")
        self.known[model] = replace(route, **fields)
        self.endpoints[model] = [
            Endpoint(f"{model}-{n}", "127.0.0.1", up.port, key="inner-key", served_name=served)
            for n, up in enumerate(upstreams)
        ]

    def routes(self) -> Sequence[Route]:
        return list(self.known.values())

    def route(self, model: str) -> Route | None:
        return next((r for r in self.known.values() if model in (r.model, *r.names)), None)

    def replicas(self) -> Sequence[ReplicaStatus]:
        ready = (
            ReplicaStatus(model, endpoint.replica, "ready", 0, 0, {}, None, endpoint)
            for model, endpoints in self.endpoints.items()
            for endpoint in endpoints
        )
        return [*ready, *self.statuses]

    def queued(self, model: str) -> int:
        return self.waiting

    def acquire(
        self, model: str, *, exclude: frozenset[str] = frozenset(), **asked: Any
    ) -> FakeLease:
        self.asked = asked
        for endpoint in self.endpoints[model]:
            if endpoint.replica not in exclude:
                waits = self.free is not None and not self.free.is_set()
                self.in_flight += not waits
                return FakeLease(self, endpoint, waits)
        raise NotReadyError(f"no replica of {model!r} is ready: starting", retry_after=2.5)


@dataclass
class FakeLease:
    backend: FakeBackend
    endpoint: Endpoint
    waits: bool = False

    async def granted(self) -> None:
        """As soon as the backend's replicas are free."""
        if not self.waits:
            return
        assert self.backend.free is not None
        self.backend.waiting += 1
        try:
            await self.backend.free.wait()
        finally:
            self.backend.waiting -= 1
        if self.backend.refusal is not None:
            raise self.backend.refusal
        self.waits = False
        self.backend.in_flight += 1

    def progress(self) -> None:
        """Nobody supervises here."""

    def release(self, *, failed: bool = False) -> None:
        self.backend.in_flight -= 1
        self.backend.finished.append((self.endpoint.replica, failed))


@dataclass
class Running:
    app: Gateway
    server: GatewayServer
    backend: FakeBackend
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.server.url

    async def post(self, path: str, body: Any, **options: Any) -> tuple[int, Any]:
        async with self.http.post(self.url + path, json=body, **options) as answer:
            return answer.status, await answer.json()

    async def stream(self, path: str, body: Any) -> str:
        async with self.http.post(self.url + path, json=body) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            return await answer.text()


Serve = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def serve(backend: FakeBackend) -> Serve:
    """``async with serve(**config) as running``: the gateway on a free port."""

    @contextlib.asynccontextmanager
    async def start(
        *,
        keys: Sequence[str] = (),
        accounts: LiveAccounts | None = None,
        tracing: Tracing | None = None,
        **config: Any,
    ) -> AsyncIterator[Running]:
        settings = GatewayConfig(**{"port": 0, "drain_timeout": 5.0, **config})
        app = create_app(GatewayDeps(backend, settings, keys, accounts, tracing=tracing))
        server = GatewayServer(app)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(server.stop)
            await server.start()
            http = await stack.enter_async_context(aiohttp.ClientSession())
            yield Running(app, server, backend, http)
        assert backend.in_flight == 0

    return start


def chat(model: str = "m", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}

"""Relays a client's request to an engine: the hot path.

Bytes are forwarded as they come. A request is sent to a second replica when the first broke off
before the client was told anything; afterwards the client is told that it broke.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import orjson

from yibu.engines.answers import Answers
from yibu.engines.base import Endpoint
from yibu.engines.registry import engines
from yibu.engines.requests import Call
from yibu.errors import NotReadyError, RequestError
from yibu.gateway.answers.collect import AnswerCollector
from yibu.gateway.envelope import engine_gone
from yibu.gateway.http.exchange import Exchange
from yibu.gateway.limits import Accounting, visible
from yibu.gateway.monitoring.metrics import GatewayMetrics
from yibu.gateway.operations import Operation, find_route
from yibu.gateway.proxy.relay import Relay
from yibu.gateway.proxy.steps import Ask, prepare, run
from yibu.gateway.requests.body import JsonRequest
from yibu.gateway.requests.heavy import parse_body
from yibu.gateway.requests.offload import OffloadProcess
from yibu.gateway.requests.prompt_size import inline_bytes
from yibu.routing import Backend, Lease, Route
from yibu.upstream.ask import request_head
from yibu.upstream.connection import EngineConnection, UpstreamError
from yibu.upstream.pool import Pool

_JOINED_BYTES = 64 * 1024
"""Bodies up to this size are copied behind their head, which is cheaper than writing two parts."""

_ONE_PROMPT = frozenset({"chat", "messages", "responses"})
"""Kinds of requests with a single prompt; it may hold pictures."""


@dataclass(slots=True)
class Payload:
    """A body for one replica: ``data``, then ``rest`` as it arrives."""

    content_type: bytes
    data: bytes
    rest: AsyncGenerator[bytes] | None = None
    length: int | None = None
    """Bytes of both together; None when the client did not say (chunked)."""


class UploadForm(Protocol):
    """An upload (``uploads.Upload``)."""

    spent: bool
    """Whether it cannot be sent again."""

    def payload(self, name: str) -> Payload:
        """The body for a replica that knows the model by this name."""
        ...


class RequestProxy:
    """Sends requests to replicas through one pool of connections."""

    def __init__(
        self,
        backend: Backend,
        pool: Pool,
        metrics: GatewayMetrics,
        offload: OffloadProcess,
        accounting: Accounting,
    ) -> None:
        self.accounting = accounting
        self._offload = offload
        self._backend = backend
        self._pool = pool
        self._metrics = metrics
        self._answers: dict[str, Answers] = {engine.name: engine.answers for engine in engines()}

    async def json(self, exchange: Exchange, operation: Operation, limit: int) -> None:
        """Answer a request with a JSON body of at most ``limit`` bytes.

        Raises:
            RequestError: it is refused, or no engine could answer it.
        """
        exchange.require_json()
        assert operation.schema is not None
        parts = await exchange.read_parts(limit)
        request = await parse_body(parts, operation.schema, self._offload)
        models = visible(self._backend, exchange.caller)
        route = find_route(models, request.model, operation)
        exchange.stream = request.stream
        if operation.kind in _ONE_PROMPT:
            exchange.prompt_most = route.max_context
            exchange.bytes_inline = inline_bytes(request.body)
        await self.accounting.admit(exchange, route, request.model)
        request = await prepare(operation, request, route, self._offload)
        await self.forward(exchange, operation, route, request, None)

    async def forward(
        self,
        exchange: Exchange,
        operation: Operation,
        route: Route,
        request: JsonRequest,
        form: UploadForm | None,
    ) -> None:
        """Send to a replica and relay its answer; ``form`` is None for JSON, which is written
        anew for each replica, since each may know the model by another name."""
        rules = self._answers.get(route.engine) or Answers()
        relay = Relay(exchange, operation, route, request, rules, self.accounting)
        if exchange.trace is None:
            await self._forward(relay, form)
            return
        kind = operation.kind
        reader = AnswerCollector(kind) if kind in {"chat", "completions"} else None
        with exchange.trace.call(kind, route, request.model, request.body, reader):
            await self._forward(relay, form)

    async def _forward(self, relay: Relay, form: UploadForm | None) -> None:
        exchange, route, request = relay.exchange, relay.route, relay.request
        failure: RequestError | None = None
        exclude: frozenset[str] = frozenset()
        while True:
            try:
                lease = await self._acquire(relay, exclude)
            except NotReadyError:
                if failure is not None:
                    raise failure from None
                raise
            failed = False
            exchange.working_since = perf_counter()
            try:
                relay.take(lease)
                if request.steps is not None:
                    await relay.stepped(run(request, self._asker(relay, lease.endpoint)))
                else:
                    await self._attempt(relay, lease.endpoint, _payload(form, relay))
                return
            except UpstreamError as error:
                failed = True
                self._metrics.upstream_errors[(route.model, error.kind)] += 1
                failure = engine_gone(error, route.model)
                final = failure is not None and (
                    relay.begun
                    or bool(exclude)
                    or error.kind == "timeout"
                    or (form is not None and form.spent)
                )
                if final:
                    raise failure from error
            finally:
                exchange.rest()
                lease.release(failed=failed)
            exclude = exclude | {exchange.replica}
            if exchange.trace is not None:
                exchange.trace.retried(exchange.replica)
            self._metrics.retries[(route.model,)] += 1

    async def _acquire(self, relay: Relay, exclude: frozenset[str]) -> Lease:
        """A replica for the request, once one has room."""
        caller, route, body = relay.exchange.caller, relay.route, relay.request.body
        affinity = prompt_affinity(body, caller.name) if route.replicas > 1 else None
        lease = self._backend.acquire(
            route.model,
            key=caller.name,
            priority=caller.priority,
            weight=caller.weight,
            affinity=affinity,
            exclude=exclude,
        )
        if lease.waits:
            await self._metrics.waited(route.model, relay.wait_for(lease))
        return lease

    async def _attempt(self, relay: Relay, endpoint: Endpoint, payload: Payload) -> None:
        operation = relay.operation
        head = _request_head(operation.path, endpoint, payload, relay.exchange)
        # A body that cannot be sent twice must not meet a connection that is just being closed.
        fresh = payload.rest is not None
        connection = await self._pool.begin(
            endpoint.host,
            endpoint.port,
            _sent(head, payload),
            fresh=fresh,
            alive=endpoint.alive,
            wait=relay.wait_head,
            patience=relay.route.upload_patience if operation.schema is None else 0.0,
        )
        try:
            await relay.answer(connection)
        finally:
            relay.waiting.stop()
            self._pool.release(connection)

    def _asker(self, relay: Relay, endpoint: Endpoint) -> Ask:
        """A function that sends one of a request's steps to the replica and returns its answer."""

        async def ask(call: Call) -> dict[str, Any]:
            body = orjson.dumps({**call.body, "model": relay.inner})
            payload = Payload(b"application/json", body, length=len(body))
            head = _request_head(call.path, endpoint, payload, relay.exchange)
            connection = await self._pool.begin(
                endpoint.host, endpoint.port, _sent(head, payload), alive=endpoint.alive
            )
            try:
                return await relay.step(connection, call)
            finally:
                self._pool.release(connection)

        return ask


def _sent(head: bytes, payload: Payload) -> bytes | Callable[[EngineConnection], Awaitable[None]]:
    """The request as ``Pool.begin`` takes it."""
    whole = payload.rest is None and payload.length is not None
    if whole and len(payload.data) <= _JOINED_BYTES:
        return head + payload.data
    return partial(_send, head=head, payload=payload)


async def _send(connection: EngineConnection, head: bytes, payload: Payload) -> None:
    connection.request_whole = False
    chunked = payload.length is None
    connection.send(head, *_frame(payload.data, chunked=chunked))
    if payload.rest is not None:
        async with aclosing(payload.rest) as parts:
            async for part in parts:
                if connection.answered:
                    return  # the engine has refused, or gone: no use in sending the rest
                connection.send(*_frame(part, chunked=chunked))
                await connection.drain()
    if chunked:
        connection.send(b"0\r\n\r\n")
    connection.request_whole = True


def _frame(part: bytes, *, chunked: bool) -> tuple[bytes, ...]:
    if not chunked:
        return (part,)
    return (b"%x\r\n" % len(part), part, b"\r\n") if part else ()


def _payload(form: UploadForm | None, relay: Relay) -> Payload:
    """The body for one replica, with the name by which it knows the model."""
    if form is not None:
        return form.payload(relay.inner)
    request, fields = relay.request, dict[str, object]()
    if relay.collects:
        fields["stream"] = True
    if relay.collects or relay.counts:
        options = request.body.get("stream_options") or {}
        fields["stream_options"] = {**options, "include_usage": True}
    data = request.encode(relay.inner, **fields)
    return Payload(b"application/json", data, length=len(data))


def _request_head(path: str, endpoint: Endpoint, payload: Payload, exchange: Exchange) -> bytes:
    """The request line and headers; of the client's own only its language and trace context."""
    framing = (
        (b"transfer-encoding", b"chunked")
        if payload.length is None
        else (b"content-length", b"%d" % payload.length)
    )
    kind, number = (b"content-type", payload.content_type), (b"x-request-id", exchange.request_id)
    headers = [framing, kind, number, *exchange.trace_headers()]
    if (spoken := exchange.headers.get(b"accept-language")) is not None:
        headers.append((b"accept-language", spoken))
    return request_head("POST", path, endpoint, headers)


_BEGINNING = 1024
"""Characters of the prompt that are hashed; prefix caches keep blocks of some dozen tokens."""


def prompt_affinity(body: Mapping[str, Any], account: str) -> int | None:
    """A hash of the account and the prompt's beginning; None where there is no prompt.

    The turns of one conversation have their first message in common, so an engine that answered the
    ones before has them in its prefix cache.
    """
    messages = body.get("messages") or body.get("input")
    beginning = messages[0] if isinstance(messages, list) and messages else messages
    if beginning is None:
        beginning = body.get("prompt")
    if beginning is None:
        return None
    if not isinstance(beginning, str):
        beginning = orjson.dumps(beginning, option=orjson.OPT_SORT_KEYS).decode()
    return hash((account, beginning[:_BEGINNING]))

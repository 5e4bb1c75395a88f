"""From a client's request to an engine's answer: the hot path.

Bytes are forwarded as they come. A request is sent to a second replica when the first broke off
before the client was told anything; afterwards the client is told that it broke.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial

import orjson

from yibu.engines.base import Endpoint
from yibu.errors import EngineGoneError, InvalidRequestError, NotReadyError, RequestError
from yibu.gateway.backend import Backend, Route
from yibu.gateway.envelope import EngineTimeoutError, translate, unserved
from yibu.gateway.events import EventMender
from yibu.gateway.exchange import Exchange
from yibu.gateway.mend import mend_answer
from yibu.gateway.metrics import Metrics
from yibu.gateway.operations import Operation, find_route
from yibu.gateway.requests import JsonRequest, parse
from yibu.gateway.sse import StreamMender, broken_off, find_usage
from yibu.upstream.ask import request_head
from yibu.upstream.connection import Connection, UpstreamError
from yibu.upstream.pool import Pool

MAX_ERROR_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""A whole answer that has to be mended is held in memory up to this."""

_TAIL = 2048
"""Bytes kept of an answer that is not held whole, to find its usage."""

FILE_PATIENCE = 4 * 3600.0
"""Seconds that our speech engine may be silent in a request: the whole answer to a file of hours comes at
its end, and whether the engine hangs its /health says."""

_PASSED = frozenset(
    {b"content-type", b"content-encoding", b"content-disposition", b"cache-control", b"retry-after"}
)
"""The engine's headers that reach the client; hop-by-hop and server headers never do."""


@dataclass(slots=True)
class Payload:
    """A request's body as the client gave it: ``data``, then ``rest`` as it comes."""

    content_type: bytes
    data: bytes
    rest: AsyncIterator[bytes] | None = None
    length: int | None = None
    """Of both together; None when the client did not say (chunked)."""
    span: tuple[int, int] = (0, 0)
    """Where in ``data`` an upload names the model."""
    consumed: bool = False
    """Something of ``rest`` was taken: it cannot be sent a second time."""

    def renamed(self, name: str) -> Payload:
        """The same upload with the name that the engine knows its model by.

        Raises:
            InvalidRequestError: the name does not stand in the part that is still here.
        """
        start, end = self.span
        if not start or end > len(self.data):
            raise InvalidRequestError(
                "The field 'model' is missing or stands behind the file",
                hint="Put 'model' before 'file' in the form",
                param="model",
            )
        new = name.encode()
        length = self.length if self.length is None else self.length + len(new) - (end - start)
        data = self.data[:start] + new + self.data[end:]
        return replace(self, data=data, length=length)


class Proxy:
    """Carries requests to replicas through one pool of connections."""

    def __init__(self, backend: Backend, pool: Pool, metrics: Metrics) -> None:
        self._backend = backend
        self._pool = pool
        self._metrics = metrics

    async def json(self, exchange: Exchange, operation: Operation, limit: int) -> None:
        """Answer a request with a JSON body of at most ``limit`` bytes.

        Raises:
            RequestError: it is refused, or no engine could answer it.
        """
        exchange.require_json()
        assert operation.schema is not None
        request = parse(await exchange.read_body(limit), operation.schema)
        route = find_route(self._backend, request.model, operation)
        exchange.model = route.meant(request.model)
        exchange.stream = request.stream
        await self.forward(exchange, operation, route, request, None)

    async def forward(
        self,
        exchange: Exchange,
        operation: Operation,
        route: Route,
        request: JsonRequest,
        payload: Payload | None,
    ) -> None:
        """Send to a replica and relay its answer; ``payload`` is None for JSON, which is written
        anew for each replica, since each may know the model by another name."""
        failure: RequestError | None = None
        exclude: frozenset[str] = frozenset()
        while True:
            try:
                endpoint = await self._backend.ensure_ready(route.model, exclude=exclude)
            except NotReadyError:
                if failure is not None:
                    raise failure from None
                raise
            exchange.replica = endpoint.replica
            failed = False
            try:
                body = _payload(payload, request, route, endpoint)
                await self._attempt(exchange, operation, route, request, endpoint, body)
                return
            except UpstreamError as error:
                failed = True
                self._metrics.upstream_errors[(route.model, error.kind)] += 1
                failure = _gone(error, route.model)
                final = failure is not None and (
                    exchange.answering
                    or bool(exclude)
                    or error.kind == "timeout"
                    or (payload is not None and payload.consumed)
                )
                if final:
                    raise failure from error
            finally:
                self._backend.done(endpoint, failed=failed)
            exclude = exclude | {endpoint.replica}
            self._metrics.retries[(route.model,)] += 1

    async def _attempt(
        self,
        exchange: Exchange,
        operation: Operation,
        route: Route,
        request: JsonRequest,
        endpoint: Endpoint,
        payload: Payload,
    ) -> None:
        head = _request_head(operation.path, endpoint, payload, exchange.request_id)
        # A body that cannot be sent twice must not meet a connection that is just being closed.
        fresh = payload.rest is not None
        file = operation.schema is None and route.engine == "speech"
        connection = await self._pool.begin(
            endpoint.host,
            endpoint.port,
            partial(_send, head=head, payload=payload),
            fresh=fresh,
            patience=FILE_PATIENCE if file else 0.0,
        )
        try:
            await self._relay(exchange, operation, route, request, endpoint, connection)
        finally:
            self._pool.release(connection)

    async def _relay(
        self,
        exchange: Exchange,
        operation: Operation,
        route: Route,
        request: JsonRequest,
        endpoint: Endpoint,
        connection: Connection,
    ) -> None:
        status = connection.status
        if status >= 400:
            body = await connection.read_all(MAX_ERROR_BYTES)
            raise unserved(status, body, operation.path, route) or translate(
                status, body, model=route.model, retry_after=_retry_after(connection)
            )
        if status >= 300:
            raise EngineGoneError(
                f"The engine of model {route.model!r} answered with a redirect ({status})",
                code="engine_protocol_error",
            )
        headers = [item for item in connection.headers if item[0] in _PASSED]
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        encoded = any(name == b"content-encoding" for name, _ in headers)
        renamed = _engine_name(request, route, endpoint) != request.model
        mend = (renamed or not route.conforming) and not encoded
        if kind.startswith(b"text/event-stream"):
            exchange.stream = True
            mender = _mender(operation, request, conforming=route.conforming) if mend else None
            headers.append((b"x-accel-buffering", b"no"))
            progressed = partial(self._backend.progress, endpoint)
            await _relay_stream(exchange, headers, connection, mender, progressed)
        elif mend and kind.startswith(b"application/json") and operation.schema is not None:
            raw = await connection.read_all(MAX_ANSWER_BYTES)
            body, exchange.tokens = mend_answer(
                raw, operation.kind, request, conforming=route.conforming
            )
            await exchange.respond(status, headers, body)
        else:
            await _relay_whole(exchange, headers, connection)


def _retry_after(connection: Connection) -> float | None:
    """Seconds, where the engine's Retry-After names them; a date is left out."""
    named = next((value for name, value in connection.headers if name == b"retry-after"), b"")
    return float(named) if named.isdigit() and len(named) < 6 else None


def _mender(
    operation: Operation, request: JsonRequest, *, conforming: bool
) -> StreamMender | EventMender:
    if operation.kind in ("responses", "messages"):
        return EventMender(request, operation.dialect)
    return StreamMender(operation.kind, request, conforming=conforming)


async def _relay_whole(exchange: Exchange, headers: list[tuple[bytes, bytes]],
                       connection: Connection) -> None:  # fmt: skip
    """Forward a body untouched; in one write when it has all come already."""
    data = await connection.read()
    if connection.complete:
        last = await connection.read()
        body = data + last if last else data
        exchange.tokens = find_usage(body)
        await exchange.respond(connection.status, headers, body)
        return
    headers += [item for item in connection.headers if item[0] == b"content-length"]
    await exchange.start(connection.status, headers)
    opening, tail = data[:_TAIL], b""
    while data:
        await exchange.write(data)
        tail = (tail + data)[-_TAIL:]
        data = await connection.read()
    exchange.tokens = find_usage(opening + tail)
    await exchange.end()


async def _relay_stream(
    exchange: Exchange,
    headers: list[tuple[bytes, bytes]],
    connection: Connection,
    mender: StreamMender | EventMender | None,
    progressed: Callable[[], None],
) -> None:
    """Forward events as they come; the status is sent with the first of them."""
    first = previous = last = b""
    try:
        while data := await connection.read():
            progressed()
            if mender is not None:
                data = mender.feed(data)
                if not data:
                    continue
            if not exchange.answering:
                await exchange.start(connection.status, headers)
            await exchange.write(data)
            first = first or data[:_TAIL]
            previous, last = last, data
    except UpstreamError as error:
        if not exchange.answering:
            raise
        await exchange.end(broken_off(_gone(error, exchange.model), last, exchange.dialect))
        raise
    rest = mender.finish() if mender is not None else b""
    if not exchange.answering:
        await exchange.start(connection.status, headers)
    # Messages counts the prompt in its first event.
    exchange.tokens = find_usage(first + (previous + last + rest)[-_TAIL:])
    if mender is not None and mender.tokens is not None:
        exchange.tokens = mender.tokens
    await exchange.end(rest)


async def _send(connection: Connection, head: bytes, payload: Payload) -> None:
    if payload.rest is None and payload.length is not None:
        connection.send(head, payload.data)
        return
    connection.request_whole = False
    chunked = payload.length is None
    connection.send(head, *_frame(payload.data, chunked=chunked))
    if payload.rest is not None:
        async for part in payload.rest:
            payload.consumed = True
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


def _engine_name(request: JsonRequest, route: Route, endpoint: Endpoint) -> str:
    """The name that this replica knows by what the client asked for."""
    meant = route.meant(request.model)
    return meant if meant != route.model else endpoint.served_name or meant


def _payload(
    upload: Payload | None, request: JsonRequest, route: Route, endpoint: Endpoint
) -> Payload:
    """The body for one replica, with the name that it knows the model by."""
    name = _engine_name(request, route, endpoint)
    if upload is not None:
        return upload if name == request.model else upload.renamed(name)
    request.body["model"] = name
    data = orjson.dumps(request.body)
    return Payload(b"application/json", data, length=len(data))


def _request_head(path: str, endpoint: Endpoint, payload: Payload, request_id: bytes) -> bytes:
    """The request line and headers: never the client's own."""
    framing = (
        (b"transfer-encoding", b"chunked")
        if payload.length is None
        else (b"content-length", b"%d" % payload.length)
    )
    kind, number = (b"content-type", payload.content_type), (b"x-request-id", request_id)
    return request_head("POST", path, endpoint, [framing, kind, number])


def _gone(error: UpstreamError, model: str) -> RequestError:
    if error.kind == "timeout":
        return EngineTimeoutError(
            f"Model {model!r}: {error.message}",
            hint="gateway.request_timeout in yibu.yaml sets the limit",
        )
    return EngineGoneError(f"Model {model!r}: {error.message}", hint=f"See why: yibu logs {model}")

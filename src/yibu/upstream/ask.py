"""Request heads for engines, and one question on a connection of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from yibu.engines.base import Endpoint
from yibu.messages import tr
from yibu.upstream.connection import Headers, UpstreamError
from yibu.upstream.pool import connect


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's whole answer; the names of its headers are lower case."""

    status: int
    headers: Headers
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def content_type(self) -> bytes:
        return next((value for name, value in self.headers if name == b"content-type"), b"").lower()

    def excerpt(self) -> str:
        return self.body[:300].decode(errors="replace").strip()


def request_head(method: str, path: str, endpoint: Endpoint, headers: Headers) -> bytes:
    """Request line and headers, with the engine's key; ``headers`` has the rest, framing too."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    key = f"authorization: Bearer {endpoint.key}\r\n" if endpoint.key is not None else ""
    opening = (
        f"{method} {path} HTTP/1.1\r\nhost: {host}:{endpoint.port}\r\n{key}"
        "accept-encoding: identity\r\n"
    )
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"%b%b\r\n" % (opening.encode(), lines)


async def ask(
    endpoint: Endpoint,
    method: str,
    path: str,
    *,
    seconds: float,
    limit: int,
    headers: Headers | None = None,
    body: bytes = b"",
) -> Answer:
    """One request on a connection that is closed afterwards, so that nothing is shared with an
    engine that is about to be killed.

    Raises:
        UpstreamError: no whole answer of at most ``limit`` bytes within ``seconds``.
    """
    framing = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    head = request_head(method, path, endpoint, [*(headers or []), *framing])
    try:
        async with asyncio.timeout(seconds):
            connection = await connect(endpoint.host, endpoint.port, endpoint.alive)
            try:
                connection.send(head, body)
                await connection.wait_head()
                whole = await connection.read_all(limit)
            finally:
                connection.abort()
    except TimeoutError:
        raise UpstreamError(
            "timeout", tr("no answer within {seconds:g} s", seconds=seconds)
        ) from None
    return Answer(connection.status, connection.headers, whole)

"""Multipart uploads, streamed through; what comes before the model's name is spooled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from yibu.errors import InvalidRequestError
from yibu.gateway.http.exchange import Exchange
from yibu.gateway.limits import Models, visible
from yibu.gateway.operations import Operation, find_route, only_route
from yibu.gateway.proxy.proxy import Payload, RequestProxy
from yibu.gateway.requests.body import JsonRequest
from yibu.gateway.requests.form import SLICE_BYTES, FormScanner, find_boundary
from yibu.gateway.requests.spool import Spool
from yibu.routing import Backend, Route


class ForwardedUpload:
    """One form being forwarded: what has arrived, and the rest as the client sends it."""

    def __init__(self, exchange: Exchange, limit: int, spool: Spool) -> None:
        self._exchange = exchange
        self._limit = limit
        self._spool = spool
        self._length = exchange.expect_length(limit)
        self._kind = exchange.headers.get(b"content-type", b"")
        self._scanner = FormScanner(find_boundary(self._kind))
        self._more = True
        self.spent = False
        """Whether bytes beyond the spool were sent on, so that the form cannot be sent again."""

    async def find_model(self) -> str | None:
        """The model that the form names; None when it is whole and names none.

        Raises:
            RequestError: the form is broken or too large, or there is no room for it.
        """
        while self._more and self._scanner.model is None:
            await self._spool.write(await self._next())
        return self._scanner.model

    def payload(self, name: str) -> Payload:
        """The form for an engine that knows the model by this name."""
        start, end = self._scanner.span if self._scanner.model else (0, 0)
        new = name.encode() if self._scanner.model else b""
        length = self._length if self._more else self._spool.size
        if length is not None:
            length += len(new) - (end - start)
        if not self._more and not self._spool.on_disk:
            held = self._spool.held()
            return Payload(self._kind, held[:start] + new + held[end:], length=length)
        return Payload(self._kind, b"", self._pieces(start, end, new), length)

    async def _pieces(self, start: int, end: int, new: bytes) -> AsyncGenerator[bytes]:
        """The whole form with ``new`` between ``start`` and ``end``."""
        for low, high, then in ((0, start, new), (end, self._spool.size, b"")):
            async with aclosing(self._spool.read(low, high)) as parts:
                async for part in parts:
                    yield part
            if then:
                yield then
        while self._more:
            self.spent = True
            if part := await self._next():
                yield part

    async def _next(self) -> bytes:
        """The next bytes from the client; the last ones only when the form is whole."""
        part, self._more = await self._exchange.next_part(self._limit)
        for at in range(0, len(part), SLICE_BYTES):
            before = self._scanner.parts
            self._scanner.feed(part[at : at + SLICE_BYTES])
            if self._scanner.parts != before:
                await asyncio.sleep(0)  # many small parts take a while
        if not self._more:
            self._scanner.finish()
        return part


async def upload(
    proxy: RequestProxy, backend: Backend, exchange: Exchange, operation: Operation, limit: int
) -> None:
    """Forward one upload of at most ``limit`` bytes to the model that it names.

    Raises:
        RequestError: it is refused, or no engine could answer it.
    """
    spool = Spool()
    try:
        form = ForwardedUpload(exchange, limit, spool)
        named = await form.find_model()
        route = _route(visible(backend, exchange.caller), operation, named)
        await proxy.accounting.admit(exchange, route, named or route.model)
        request = JsonRequest(named or route.model, {}, stream=False, include_usage=False)
        await proxy.forward(exchange, operation, route, request, form)
    finally:
        if spool.on_disk:  # giving half a GiB back takes a while
            await asyncio.shield(asyncio.to_thread(spool.close))


def _route(models: Models, operation: Operation, model: str | None) -> Route:
    if model:
        return find_route(models, model, operation)
    if not operation.model_required:
        return only_route(models, operation)
    raise InvalidRequestError(
        "'model' is missing", param="model", code="missing_required_parameter"
    )

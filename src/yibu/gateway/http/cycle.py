"""One request and its answer on a connection: uvicorn's, with a shortcut for whole bodies."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from yibu.gateway.http.exchange import Headers

_JOINED_BYTES = 64 * 1024
"""Bodies up to this size are copied behind their head, which is cheaper than writing two parts."""


class Cycle(RequestResponseCycle):
    """A request whose body may be complete, and whose answer may be sent whole."""

    async def receive(self) -> Any:
        """As uvicorn's; a body that is already complete is returned without waiting."""
        if self.more_body or self.disconnected or self.response_complete:
            return await super().receive()
        if self.waiting_for_100_continue or not self.message_event.is_set():
            return await super().receive()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    def answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole answer in one write; ``headers`` has its Content-Length.

        Returns False where uvicorn's way has to be taken: the client is slow, or the answer is to be
        framed otherwise.
        """
        if (
            self.response_started
            or self.flow.write_paused
            or status in {204, 304}
            or self.scope["method"] == "HEAD"
            or self.scope["http_version"] != "1.1"
        ):
            return False
        if self.disconnected:
            return True
        every = (*self.default_headers, *headers)
        lines = b"".join([b"%b: %b\r\n" % header for header in every])
        # No header may end a line of its own, or tell more of the connection than is told here.
        breaks = lines.count(b"\n") != len(every) or lines.count(b"\r") != len(every)
        if breaks or b"\0" in lines or (b"connection", b"close") in headers:
            return False
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        head = b"%b%b%b" % (STATUS_LINE[status], lines, end)
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if len(body) <= _JOINED_BYTES:
            self.transport.write_whole(head + body)  # type: ignore[attr-defined]
        else:
            self.transport.write_whole(head, body)  # type: ignore[attr-defined]
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True

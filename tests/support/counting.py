"""Clients that ask without a pause and count what became of each request; nothing is tried twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import h11

_BODY = {"messages": [{"role": "user", "content": "hello"}]}


@dataclass
class Count:
    """What became of the requests: ``answered``, or why not."""

    outcomes: Counter[str] = field(default_factory=Counter)
    stop: bool = False

    @property
    def answered(self) -> int:
        return self.outcomes["answered"]

    @property
    def lost(self) -> Counter[str]:
        return self.outcomes - Counter(answered=self.answered)


class Connection:
    """One connection to the gateway, kept for as long as the gateway keeps it."""

    def __init__(self, port: int, key: str = "") -> None:
        self._port = port
        self._key = key
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._parser = h11.Connection(h11.CLIENT)

    async def ask(self, model: str, **fields: Any) -> tuple[int, bytes]:
        """One request, on the connection that is there or a new one: status and body.

        Raises:
            OSError: it could not be sent, or no whole answer came.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            self._parser = h11.Connection(h11.CLIENT)
        body = json.dumps({"model": model, **_BODY, **fields}).encode()
        headers = [("host", "127.0.0.1"), ("content-type", "application/json"),
                   ("content-length", str(len(body)))]  # fmt: skip
        if self._key:
            headers.append(("authorization", f"Bearer {self._key}"))
        request = h11.Request(method="POST", target="/v1/chat/completions", headers=headers)
        try:
            self._streams[1].write(
                (self._parser.send(request) or b"")
                + (self._parser.send(h11.Data(body)) or b"")
                + (self._parser.send(h11.EndOfMessage()) or b"")
            )
            answer = await self._answer(self._streams[0])
        except BaseException:
            await self.close()
            raise
        if self._parser.their_state is h11.DONE and self._parser.our_state is h11.DONE:
            self._parser.start_next_cycle()
        else:
            await self.close()
        return answer

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        status, body = 0, b""
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                try:
                    self._parser.receive_data(await reader.read(65536))
                except h11.RemoteProtocolError as error:
                    raise ConnectionError(str(error)) from error
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            else:
                raise ConnectionError(f"closed before a whole answer: {event!r}")

    async def close(self) -> None:
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def ask_on(
    port: int, model: str, count: Count, most: int | None = None, key: str = ""
) -> None:
    """One client: ask until ``count.stop``, or until all clients have asked ``most`` times."""
    connection = Connection(port, key)
    while not count.stop and (most is None or count.outcomes.total() < most):
        try:
            status, body = await connection.ask(model)
            count.outcomes["answered" if status == 200 else f"{status} {body[:200]!r}"] += 1
        except (OSError, h11.RemoteProtocolError) as error:
            count.outcomes[f"{type(error).__name__}: {error}"] += 1
    await connection.close()

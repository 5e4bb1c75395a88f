"""Clients of a chaos run: kept connections, pipelines, slow readers, leavers and half-senders.

What comes is read by h11, so that a byte too many or too few is its finding and not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import h11

from tests.chaos.acts import ACTS, Order
from tests.chaos.books import Books, Entry, Response
from tests.chaos.ledger import EXACT, ROUGH

WAYS = {"kept": 60, "pipelined": 15, "slow": 8, "leaving": 10, "half-sent": 7}
"""What a client does next, and how often."""
_THINK = 0.05
"""Seconds between two requests of a client, at most: the run is no test of speed."""
_PATHS = {True: "/v1/chat/completions", False: "/v1/completions"}


class Line:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._rest = b""
        self.usable = True
        """Whether a further request may be sent."""

    @classmethod
    async def open(cls, port: int, limit: int = 65536) -> Line:
        """A connection that the caller closes; :meth:`to` closes it itself."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=limit))

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, port: int, limit: int = 65536) -> AsyncIterator[Line]:
        """A connection that is closed however its use ends: cancelled, refused or done."""
        line = await cls.open(port, limit)
        try:
            yield line
        finally:
            line.close()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self.usable = False
        self._writer.transport.abort()

    async def unasked(self) -> bytes:
        """Bytes that came although every request has been answered."""
        if not self._rest:
            try:
                async with asyncio.timeout(0.001):
                    self._rest = await self._reader.read(1000)
            except TimeoutError:
                # On a busy loop the end may have come in the very moment in which the wait was over.
                self.usable = not self._reader.at_eof()
                return b""
            except OSError:
                self.usable = False
            if not self._rest:
                self.usable = False
        return self._rest

    async def response(self, pace: Callable[[], float] | None = None) -> Response:
        """The next response; ``pace`` gives seconds to wait after each read."""
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        parser.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        found = Response(0, {})
        if self._rest:
            parser.receive_data(self._rest)
        try:
            await self._read(parser, found, pace)
        except (h11.RemoteProtocolError, OSError) as error:
            found.fault = f"{type(error).__name__}: {error}"
            self.usable = False
        self._rest = bytes(parser.trailing_data[0]) if found.complete else b""
        if parser.their_state is not h11.DONE:
            self.usable = False
        return found

    async def _read(
        self, parser: h11.Connection, found: Response, pace: Callable[[], float] | None
    ) -> None:
        body = []
        try:
            while True:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    data = await self._reader.read(65536)
                    if not data and not found.status:
                        raise ConnectionError("closed before a response")
                    parser.receive_data(data)
                    if pace is not None:
                        await asyncio.sleep(pace())
                elif isinstance(event, h11.Response):
                    found.status = event.status_code
                    found.headers = {k.decode(): v.decode() for k, v in event.headers}
                elif isinstance(event, h11.Data):
                    body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    found.complete = True
                    return
                elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    raise ConnectionError(f"{event!r} before a response")
        finally:
            found.body = b"".join(body)


class Ration:
    """Lets something happen once in so many seconds, over all clients."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0
        self.held = False
        """Nothing happens, for as long as what an event does is looked at."""

    def take(self) -> bool:
        if self.held or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._seconds
        return True


class Customer:
    """One client, which asks one thing after another until it is cancelled.

    ``models`` are names, and whether an act may end the engine there.
    """

    def __init__(
        self,
        books: Books,
        port: int,
        chance: random.Random,
        models: dict[str, bool],
        ration: Ration,
    ) -> None:
        self._books, self._port, self._chance, self._models = books, port, chance, models
        self._ration = ration
        self._line: Line | None = None
        self._go_on = asyncio.Event()
        self._go_on.set()
        self.idle = asyncio.Event()
        """It was paused, has ended what it had begun, and has no connection."""

    def pause(self) -> None:
        self._go_on.clear()

    def resume(self) -> None:
        self.idle.clear()
        self._go_on.set()

    async def run(self) -> NoReturn:
        try:
            await self._go()
        finally:
            self._hang_up()

    async def _go(self) -> NoReturn:
        while True:
            if not self._go_on.is_set():
                self._hang_up()
                self.idle.set()
                await self._go_on.wait()
            try:
                await self._next()
            except ConnectionRefusedError as refused:  # the listening socket outlives the node
                self._books.wrong.append(f"a client was refused: {refused}")
                await asyncio.sleep(0.05)
            except OSError:  # what was sent is in the books
                self._hang_up()
                await asyncio.sleep(0.05)

    async def _next(self) -> None:
        await self._think(_THINK)
        way = self._chance.choices(list(WAYS), list(WAYS.values()))[0]
        await getattr(self, "_" + way.replace("-", "_"))()

    async def _think(self, most: float) -> None:
        await asyncio.sleep(self._chance.uniform(0, most))

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    async def _kept(self) -> None:
        await self._ask("kept", 1)

    async def _pipelined(self) -> None:
        await self._ask("pipelined", self._chance.randint(2, 4))

    async def _slow(self) -> None:
        self._hang_up()
        self._line = await Line.open(self._port, limit=2048)
        await self._ask("slow", 1, pace=lambda: 0.01)

    async def _ask(self, how: str, number: int, pace: Callable[[], float] | None = None) -> None:
        line = await self._connected()
        entries = [self._books.begin(self._entry(how)) for _ in range(number)]
        line.send(b"".join(map(request, entries)))
        for entry in entries:
            if not line.usable:
                self._books.end(entry, None, "dropped")
                continue
            response = await line.response(pace)
            self._books.end(entry, response)
        if line.usable and (data := await line.unasked()):
            self._books.wrong.append(f"after {[e.order for e in entries]} came {data[:300]!r}")
            line.close()

    async def _leaving(self) -> None:
        """Go away before, within, or shortly after the answer's beginning."""
        async with Line.to(self._port) as line:
            entry = self._books.begin(self._entry("leaving"))
            line.send(request(entry))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.choice([0, 0.005, 0.05, 0.3])):
                    await line.response(lambda: 0.005)
        self._books.end(entry, None, "left")

    async def _half_sent(self) -> None:
        async with Line.to(self._port) as line:
            entry = self._books.begin(self._entry("half-sent"))
            data = request(entry)
            line.send(data[: self._chance.randrange(1, len(data))])
            await asyncio.sleep(self._chance.choice([0, 0.01, 0.1]))
        self._books.end(entry, None, "left")

    async def _connected(self) -> Line:
        if self._line is not None and self._line.usable:
            # What came since, or that the gateway hung up meanwhile, is found before a request is
            # sent, as a client's pool does.
            if data := await self._line.unasked():
                self._books.wrong.append(f"on an idle connection came {data[:300]!r}")
                self._line.close()
            if self._line.usable:
                return self._line
        self._hang_up()
        self._line = await Line.open(self._port)
        return self._line

    def _entry(self, how: str) -> Entry:
        chance = self._chance
        model = chance.choice(list(self._models))
        stream = chance.random() < 0.6
        form = "stream" if stream else "whole"
        acts = [a for a in ACTS.values() if form in a.forms and (self._models[model] or not a.lethal)]  # fmt: skip
        # Half of all is plain: what a bad answer leaves behind is seen by the good one after it.
        act = ACTS["plain"] if chance.random() < 0.5 else chance.choice(acts)
        if act.lethal and not self._ration.take():
            act = ACTS["plain"]
        (words,) = chance.choices([1, 5, 20, 100, 3000], [2, 4, 4, 4, 0.3])
        if act.name in ("trickle", "shreds") or how == "slow":
            words = min(words, 20)
        nonce = f"n{chance.getrandbits(64):016x}"
        order = Order(act.name, nonce, words, at=chance.randint(0, min(words, 30)))
        certain = act.expected == "answer" and not self._models[model]
        key = EXACT if certain and how not in ("leaving", "half-sent") else ROUGH
        secret = self._books.ledger.secrets.get(key, "")
        return Entry(order, model, stream, chance.random() < 0.7, how, key, secret)


def request(entry: Entry) -> bytes:
    prompt = entry.order.prompt()
    asked = {"messages": [{"role": "user", "content": prompt}]} if entry.chat else {"prompt": prompt}  # fmt: skip
    return encoded(entry, asked)


def encoded(entry: Entry, asked: dict[str, Any]) -> bytes:
    """A request for its model, as HTTP."""
    body = json.dumps({"model": entry.model, "stream": entry.stream, **asked}).encode()
    return (
        f"POST {_PATHS[entry.chat]} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {entry.secret or 'none'}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body

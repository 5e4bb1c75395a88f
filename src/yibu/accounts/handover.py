"""Limits while two nodes stand: the new node keeps them, and the old one asks it for each request.

Lines of JSON over the socket of the upgrade, once the new node serves:

| old node | new node |
|---|---|
| ``{"meters": {name: [requests left, tokens left, in flight]}}``, first | |
| ``{"begin": [name], "tokens": n, "id": n}`` | ``{"id": n, "refusal": … or null, "windows": […]}`` |
| ``{"end": [name], "set_aside": n, "tokens": n}`` | |

So both together admit what one would. A node that is gone asks nothing any more, and what it had begun is
over; an old node that gets no answer goes on with what it knew when the new one began.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from yibu.accounts.limits import Meter, Refusal, Verdict, Window

_FIRST = 5.0
"""Seconds in which the old node says what is in use."""
_ANSWER = 5.0
"""Seconds in which the new node says whether a request may begin."""


class Successor:
    """The node that keeps the limits now, as the old one asks it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        meters: Sequence[Meter],
        now: float,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count()
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._send({"meters": {meter.name: meter.state(now) for meter in meters}})

    async def run(self) -> None:
        """Take its answers; returns when it is gone."""
        try:
            with contextlib.suppress(ConnectionError):
                while line := await self._reader.readline():
                    answer = json.loads(line)
                    if (asked := self._asked.pop(answer["id"], None)) and not asked.done():
                        asked.set_result(answer)
        finally:
            self._writer.close()
            for asked in self._asked.values():
                asked.cancel()

    async def begin(self, meters: Sequence[Meter], tokens: int) -> Verdict | None:
        """Whether a request may begin; None where the node does not say."""
        number, loop = next(self._ids), asyncio.get_running_loop()
        answered = self._asked[number] = loop.create_future()
        self._send({"begin": [meter.name for meter in meters], "tokens": tokens, "id": number})
        heard = False
        try:
            await asyncio.wait((answered,), timeout=_ANSWER)
            heard = answered.done()
        finally:
            if not heard:  # the client has left, or the node is slow: what it then begins is over

                def unwanted(late: asyncio.Future[dict[str, Any]]) -> None:
                    if not late.cancelled() and late.result()["refusal"] is None:
                        self.end(meters, tokens, 0)

                answered.add_done_callback(unwanted)
        if not heard or answered.cancelled():
            return None
        answer = answered.result()
        windows = [window and Window(**window) for window in answer["windows"]]
        refusal = answer["refusal"]
        if refusal is not None:
            named = {meter.name: meter for meter in meters}
            refusal = Refusal(**{**refusal, "who": named[refusal["name"]].who})
        return Verdict(refusal, (windows[0], windows[1]))

    def end(self, meters: Sequence[Meter], set_aside: int, tokens: int) -> None:
        """A request is over."""
        names = [meter.name for meter in meters]
        self._send({"end": names, "set_aside": set_aside, "tokens": tokens})

    def _send(self, message: dict[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")


class Keeper(Protocol):
    """What keeps the limits of the new node."""

    def meter(self, name: str) -> Meter | None:
        """One of its meters; None for a key or a model that has no limit."""

    async def begin(self, meters: Sequence[Meter], tokens: int) -> Verdict: ...

    def end(self, meters: Sequence[Meter], set_aside: int, tokens: int) -> None: ...


async def serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    keeper: Keeper,
    known: asyncio.Event,
    clock: Callable[[], float],
) -> None:
    """Count for an old node until it is gone; ``known`` is set when it has said what is in use."""
    running: Counter[str] = Counter()
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_FIRST):
                line = await reader.readline()
            while line:
                message = json.loads(line)
                for name, state in message.get("meters", {}).items():
                    requests, tokens, in_flight = state
                    if (meter := keeper.meter(name)) is not None:
                        meter.resume(requests, tokens, in_flight, clock())
                        running[name] += in_flight
                known.set()
                if (names := message.get("begin")) is not None:
                    meters = _found(keeper, names)
                    verdict = await keeper.begin(meters, message["tokens"])
                    if verdict.refusal is None:
                        running.update(meter.name for meter in meters)
                    answer = {"id": message["id"], **dataclasses.asdict(verdict)}
                    writer.write(json.dumps(answer, default=str).encode() + b"\n")
                if (names := message.get("end")) is not None:
                    meters = _found(keeper, names)
                    running.subtract(meter.name for meter in meters)
                    keeper.end(meters, message["set_aside"], message["tokens"])
                line = await reader.readline()
    finally:
        known.set()
        for name, number in running.items():
            if (meter := keeper.meter(name)) is not None:
                for _ in range(number):
                    keeper.end([meter], 0, 0)
        writer.close()


def _found(keeper: Keeper, names: Sequence[str]) -> list[Meter]:
    return [meter for name in names if (meter := keeper.meter(name)) is not None]

"""Limits while two nodes run: the new node keeps them, and the old one asks it for each request.

Messages over the channel of the upgrade (:mod:`yibu.channel`), once the new node serves:

| old node | new node |
|---|---|
| ``{"meter": name, "state": [requests left, tokens left, in flight]}``, first | |
| ``{"begin": [name], "tokens": n, "id": n}`` | ``{"answer": n, "refusal": … or null, "windows": […]}`` |
| ``{"use": [name], "set_aside": n, "tokens": n, "hour": n}``, while a request goes on | |
| ``{"end": [name], "set_aside": n, "tokens": n}`` | |
| ``{"slot": [hour, key, model], "used": {…}}``, at its end: what it could not write | |

So both together admit what one would. A node that is gone asks nothing any more, and what it had begun is
over; an old node that gets no answer goes on with what it knew when the new one began.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from yibu.accounts.limits import LimitRefusal, LimitVerdict, Meter, Window
from yibu.accounts.usage import Used
from yibu.channel import Channel, Message

_ANSWER = 5.0
"""Seconds for the new node to say whether a request may begin."""


class LimitsSuccessor:
    """The new node that keeps the limits, as the old one sees it."""

    def __init__(self, channel: Channel, meters: Sequence[Meter], now: float) -> None:
        self._channel = channel
        for meter in meters:
            channel.send({"meter": meter.name, "state": meter.state(now)})

    async def begin(self, meters: Sequence[Meter], tokens: int) -> LimitVerdict | None:
        """Whether a request may begin; None where the node does not say."""
        answered = self._channel.ask({"begin": [meter.name for meter in meters], "tokens": tokens})
        heard = False
        try:
            await asyncio.wait((answered,), timeout=_ANSWER)
            heard = answered.done()
        finally:
            if not heard:  # the client has left, or the node is slow: what it then begins is over

                def unwanted(late: asyncio.Future[Message]) -> None:
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
            refusal = LimitRefusal(**{**refusal, "who": named[refusal["name"]].who})
        return LimitVerdict(refusal, (windows[0], windows[1]))

    def use(self, meters: Sequence[Meter], set_aside: int, tokens: int, hour: int) -> None:
        """Report what a request that goes on has taken."""
        names = [meter.name for meter in meters]
        self._channel.send({"use": names, "set_aside": set_aside, "tokens": tokens, "hour": hour})

    def end(self, meters: Sequence[Meter], set_aside: int, tokens: int) -> None:
        """Report the end of a request."""
        names = [meter.name for meter in meters]
        self._channel.send({"end": names, "set_aside": set_aside, "tokens": tokens})


class Keeper(Protocol):
    """Keeps the new node's limits."""

    def meter(self, name: str) -> Meter | None:
        """The meter of that name; None for a key or model without limits."""

    def take(self, slot: Sequence[Any], used: Used) -> None:
        """Record usage of another node."""

    async def begin(self, meters: Sequence[Meter], tokens: int) -> LimitVerdict: ...

    def use(self, meters: Sequence[Meter], set_aside: int, tokens: int, hour: int) -> None: ...

    def end(self, meters: Sequence[Meter], set_aside: int, tokens: int) -> None: ...


class LimitsPredecessor:
    """The old node, whose requests this one counts."""

    def __init__(self, channel: Channel, keeper: Keeper, clock: Callable[[], float]) -> None:
        self._channel, self._keeper, self._clock = channel, keeper, clock
        self._running: Counter[str] = Counter()

    def handle(self, message: Message) -> Coroutine[Any, Any, None] | None:
        if (name := message.get("meter")) is not None:
            requests, tokens, in_flight = message["state"]
            if (meter := self._keeper.meter(name)) is not None:
                meter.resume(requests, tokens, in_flight, self._clock())
                self._running[name] += in_flight
        elif (slot := message.get("slot")) is not None:
            self._keeper.take(slot, Used(**message["used"]))
        elif "begin" in message:
            return self._begin(message)
        elif (names := message.get("use")) is not None:
            taken = message["set_aside"], message["tokens"], message["hour"]
            self._keeper.use(self._found(names), *taken)
        elif (names := message.get("end")) is not None:
            self._running.subtract(names)
            self._keeper.end(self._found(names), message["set_aside"], message["tokens"])
        return None

    async def _begin(self, message: Message) -> None:
        meters = self._found(message["begin"])
        verdict = await self._keeper.begin(meters, message["tokens"])
        if verdict.refusal is None:
            self._running.update(message["begin"])
        answer = dataclasses.asdict(verdict)
        if verdict.refusal is not None:
            answer["refusal"]["who"] = ""  # the old node has its own name for it
        self._channel.send({"answer": message["id"], **answer})

    def gone(self) -> None:
        """End the requests it had begun."""
        for name, number in self._running.items():
            for meter in self._found([name] * max(number, 0)):
                self._keeper.end([meter], 0, 0)

    def _found(self, names: Sequence[str]) -> list[Meter]:
        return [meter for name in names if (meter := self._keeper.meter(name)) is not None]

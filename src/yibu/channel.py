"""Two nodes of one home talk while one takes the other's place: a line of JSON each message.

A question has an ``id``, its answer the same number as ``answer``; all else are notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Coroutine
from typing import Any

from yibu.messages import pack, unpack

Message = dict[str, Any]
Handler = Callable[[Message], Coroutine[Any, Any, None] | None]
"""Takes a message of the other side; what it returns is run beside."""


class Channel:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Message]] = {}

    def send(self, message: Message) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(pack(message)).encode() + b"\n")

    def number(self) -> int:
        """One that no other question of this side has."""
        return next(self._numbers)

    def ask(self, message: Message) -> asyncio.Future[Message]:
        """The answer, once it comes; cancelled when the other side is gone."""
        number = message.setdefault("id", self.number())
        answered = self._asked[number] = asyncio.get_running_loop().create_future()
        if self._writer.is_closing():
            answered.cancel()
        self.send(message)
        return answered

    async def run(self, *handlers: Handler) -> None:
        """Hear the other side until it is gone."""
        beside: set[asyncio.Task[None]] = set()
        try:
            with contextlib.suppress(ConnectionError):
                while line := await self._reader.readline():
                    message = unpack(json.loads(line))
                    asked = self._asked.pop(message.get("answer"), None)
                    if asked is not None and not asked.done():
                        asked.set_result(message)
                    for handle in handlers:
                        if (work := handle(message)) is not None:
                            task = asyncio.create_task(work, name="for the other node")
                            beside.add(task)
                            task.add_done_callback(beside.discard)
        finally:
            self._writer.close()
            for task in list(beside):
                task.cancel()
            for asked in self._asked.values():
                asked.cancel()

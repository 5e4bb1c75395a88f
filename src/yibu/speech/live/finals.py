"""One session's final texts, in the order of the speech, with speakers."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import Executor
from dataclasses import replace

from yibu.speech.live.speakers import LiveSpeakers
from yibu.speech.live.utterance import Listener, Utterance

log = logging.getLogger(__name__)


class Finals:
    """Lives on the event loop. Always ``close`` it."""

    def __init__(self, listener: Listener, speakers: LiveSpeakers | None, pool: Executor) -> None:
        """``speakers`` are told apart on ``pool``; None: not at all."""
        self.changed = asyncio.Event()
        """Set when a text was delivered."""
        self._listener, self._speakers, self._pool = listener, speakers, pool
        self._waiting: deque[Utterance] = deque()
        self._labelling: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """The number of utterances waiting for their text."""
        return len(self._waiting)

    def add(self, utterance: Utterance) -> None:
        self._waiting.append(utterance)

    def remove(self, utterance: Utterance) -> None:
        self._waiting.remove(utterance)

    def tell(self) -> None:
        """Deliver finished texts."""
        while self._waiting and self._waiting[0].done:
            utterance = self._waiting[0]
            if self._speakers is not None and any(each.voices for each in utterance.recognized):
                if self._labelling is None:
                    work = self._label(self._speakers, utterance)
                    self._labelling = asyncio.create_task(work, name="speakers of an utterance")
                return
            self._listener.final(self._waiting.popleft())
        self.changed.set()

    def close(self) -> None:
        if self._labelling is not None:
            self._labelling.cancel()
        self._waiting.clear()
        self.changed.set()

    async def _label(self, speakers: LiveSpeakers, utterance: Utterance) -> None:
        loop = asyncio.get_running_loop()
        try:
            told = await loop.run_in_executor(self._pool, speakers.told, utterance.recognized)
            utterance.segments = [*told]
        except Exception:  # a fault of ours costs one text its speakers, not the session
            log.exception("telling the speakers of an utterance failed")
            utterance.segments = [replace(each, voices=()) for each in utterance.recognized]
        self._labelling = None
        self.tell()

"""The running engine: loads the model on a thread, then serves it until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import numpy as np

from yibu.errors import EngineError, NotReadyError, OverloadedError
from yibu.speech.allocator import give_back
from yibu.speech.batcher import Batcher
from yibu.speech.live.partials import PartialQueue
from yibu.speech.live.tools import LiveTools
from yibu.speech.loading import Loaded
from yibu.speech.metrics import SpeechMetrics
from yibu.speech.settings import SpeechSettings
from yibu.speech.transcriber import Transcriber
from yibu.speech.types import SAMPLE_RATE, RecognitionOptions, Recognizer, Segment

log = logging.getLogger(__name__)

_DECODERS = 2
"""Threads for decoding and VAD. They share the cores with the model; two keep it fed. Live sessions
have as many of their own: a step of theirs takes a millisecond, one of a file some tens."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The parts that exist once the model is loaded."""

    recognizer: Recognizer
    batcher: Batcher
    transcriber: Transcriber
    live: LiveTools


class SpeechEngine:
    """One model, its threads, and the requests in flight. Lives on one event loop."""

    def __init__(self, settings: SpeechSettings, load: Callable[[], Loaded]) -> None:
        self.settings = settings
        self.metrics = SpeechMetrics()
        self.created = int(time.time())
        self.failure: BaseException | None = None
        """The exception that stopped the engine, if any."""
        self._load = load
        self._serving: Serving | None = None
        self._in_flight = self._sessions = 0
        self._model_threads = [_one_thread()]
        """The first one loads the model."""
        self._pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decoder")
        self._live_pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="live")
        self.metrics.gauge("in_flight", "Requests in flight.", lambda: float(self._in_flight))
        self.metrics.gauge("live_sessions", "Live sessions.", lambda: float(self._sessions))

    @asynccontextmanager
    async def running(self, stop: Callable[[], None]) -> AsyncGenerator[None, None]:
        """Own the model while the server runs; ``stop`` is called if the engine ends by itself."""
        task = asyncio.create_task(self._run(), name="engine")

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                self.failure = task.exception()
                self._serving = None
                stop()

        task.add_done_callback(ended)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._live_pool.shutdown(wait=False, cancel_futures=True)
            for thread in self._model_threads:
                thread.shutdown(wait=False, cancel_futures=True)

    def serving(self) -> Serving:
        """The loaded model.

        Raises:
            NotReadyError: it is still loading, or it hangs.
        """
        if self._serving is None:
            raise NotReadyError(
                "The model {served_name!r} is still loading",
                served_name=self.settings.served_name,
                retry_after=5,
            )
        return self._serving

    def check_health(self) -> None:
        """Raises NotReadyError unless a request would be served."""
        if self.serving().batcher.stalled:
            raise NotReadyError(
                "The model hangs: one batch has been computing for more than {stall_seconds:.0f} s",
                stall_seconds=self.settings.limits.stall_seconds,
                code="model_stalled",
            )

    @contextmanager
    def place(self) -> Generator[None, None, None]:
        """A place among the requests in flight, taken before the upload is read.

        Raises:
            OverloadedError: all are taken.
        """
        limit = self.settings.limits.requests
        if self._in_flight >= limit:
            retry_after = self._serving.batcher.retry_after() if self._serving else 5.0
            raise OverloadedError(
                "{limit} requests are in flight, the limit of this server",
                limit=limit,
                retry_after=retry_after,
            )
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    @contextmanager
    def session(self) -> Generator[None, None, None]:
        """A place among the live sessions.

        Raises:
            OverloadedError: all are taken.
        """
        limit = self.settings.limits.sessions
        if self._sessions >= limit:
            raise OverloadedError(
                "{limit} live sessions are open, the limit of this server",
                limit=limit,
                retry_after=5.0,
            )
        self._sessions += 1
        try:
            yield
        finally:
            self._sessions -= 1

    async def _run(self) -> None:
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._model_threads[0], self._load_and_warm)
        limits = self.settings.limits
        self._model_threads += [_one_thread() for _ in range(1, loaded.parallel)]
        batcher = Batcher(loaded.recognizer, self._model_threads, limits, self.metrics)
        transcriber = Transcriber(
            loaded.segmenter, batcher, self._pool, limits, self.metrics, loaded.finishing
        )
        batcher.partials = partials = PartialQueue(
            used=lambda: time.process_time() / self.settings.threads
        )
        live = LiveTools(
            loaded.segmenter, batcher, partials, self._live_pool, self.metrics, loaded.recognizer,
            loaded.tells_speakers, loaded.streaming,
        )  # fmt: skip
        self._serving = Serving(loaded.recognizer, batcher, transcriber, live)
        log.info(
            "serving %s: precision %s, VAD %s, %d threads, ready after %.1f s",
            self.settings.served_name,
            loaded.recognizer.precision,
            loaded.segmenter.name,
            self.settings.threads,
            time.monotonic() - started,
        )
        await batcher.run()
        raise EngineError("the batcher ended")

    def _load_and_warm(self) -> Loaded:
        """On a thread of the model's. The first computation is slow (buffers, kernels): it is not to
        be a client's."""
        loaded = self._load()
        log.info("loaded, warming up")
        noise = np.random.default_rng(0).normal(0.0, 0.01, SAMPLE_RATE).astype(np.float32)
        session = loaded.segmenter.session()
        segments = [*session.feed(noise), *session.finish()]
        loaded.recognizer.recognize(
            segments or [Segment(0.0, noise)], [RecognitionOptions()] * max(len(segments), 1)
        )
        give_back()
        return loaded


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="model")

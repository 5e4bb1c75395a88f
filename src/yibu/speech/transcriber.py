"""From an upload to recognized segments: decode, VAD, batcher, one bounded block at a time.

Decoding and VAD run on a small pool, a few seconds of audio a step; between its steps a request
holds no thread, so many long files share the pool fairly with short ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, TypeVar

from yibu.errors import RequestError
from yibu.messages import tr
from yibu.speech.audio.decoding import Decoder
from yibu.speech.audio.faults import bad_audio
from yibu.speech.audio.tracks import Heard
from yibu.speech.batcher import Batcher
from yibu.speech.metrics import SpeechMetrics
from yibu.speech.settings import EngineLimits
from yibu.speech.stated import Stated
from yibu.speech.types import RecognitionOptions, Recognized, Segment, Segmenter, SegmenterSession

if TYPE_CHECKING:  # OpenVINO is not in whisper's environment
    from yibu.speech.stages import Finishing, Stage

log = logging.getLogger(__name__)

_STEP_SECONDS = 8.0
"""Seconds of audio decoded at once: some tens of milliseconds of one core."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Step:
    segments: list[Segment]
    seconds: float
    finished: bool


class _Reading:
    """One file being decoded and segmented. Its methods run on the pool's threads, one at a time."""

    def __init__(
        self, file: IO[bytes], said: Stated, limits: EngineLimits, segmenter: Segmenter
    ) -> None:
        self._file, self._said, self._limits, self._segmenter = file, said, limits, segmenter
        self._decoder: Decoder | None = None
        self._session: SegmenterSession | None = None
        self.heard = Heard(0.0)
        """The file's properties, once it is closed."""

    def open(self) -> float:
        """Seconds of audio to expect, by the file's header or its size."""
        self._decoder = Decoder(self._file, self._limits, self._said)
        self._session = self._segmenter.session()
        return self._decoder.expected

    def step(self) -> _Step:
        assert self._decoder is not None
        assert self._session is not None
        samples = self._decoder.read(_STEP_SECONDS)
        if samples is None:
            return _Step(self._session.finish(), 0.0, finished=True)
        return _Step(self._session.feed(samples), len(samples) / 16_000, finished=False)

    def close(self) -> None:
        """Close the file and free its parts."""
        if self._decoder is not None:
            self._decoder.close()
            decoder = self._decoder
            self.heard = Heard(
                decoder.seconds, decoder.track, tuple(decoder.tracks), tuple(decoder.notes)
            )
        self._decoder = self._session = None
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed


class _Delivery:
    """Delivers results through the stages of a request. Lives on the event loop; the stages run on
    ``pool``."""

    def __init__(
        self, stages: Sequence[Stage], emit: Callable[[Recognized], None], pool: Executor
    ) -> None:
        self._stages = stages
        self._emit = emit
        self._pool = pool
        self._arrived: list[Recognized] = []
        self._work: asyncio.Task[None] | None = None

    def put(self, result: Recognized) -> None:
        if not self._stages:
            self._emit(result)
            return
        self._arrived.append(result)
        if self._work is None or (self._work.done() and self._work.exception() is None):
            self._work = asyncio.create_task(self._hand_on(), name="punctuation and speakers")

    async def finish(self) -> None:
        """Deliver the rest. Raises what a stage raised."""
        if self._work is not None:
            await self._work
        if self._stages:
            await self._emit_all(self._finished)

    async def close(self) -> None:
        """Cancel what is in progress."""
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work})

    async def _hand_on(self) -> None:
        while self._arrived:
            await self._emit_all(partial(self._fed, self._arrived))

    async def _emit_all(self, compute: Callable[[], list[Recognized]]) -> None:
        self._arrived = []
        for result in await asyncio.get_running_loop().run_in_executor(self._pool, compute):
            self._emit(result)

    def _fed(self, results: list[Recognized]) -> list[Recognized]:
        for stage in self._stages:
            results = stage.feed(results)
        return results

    def _finished(self) -> list[Recognized]:
        results: list[Recognized] = []
        for stage in self._stages:
            results = [*stage.feed(results), *stage.finish()]
        return results


class Transcriber:
    """Runs requests; owns neither the pool nor the batcher."""

    def __init__(
        self,
        segmenter: Segmenter,
        batcher: Batcher,
        pool: Executor,
        limits: EngineLimits,
        metrics: SpeechMetrics,
        finishing: Finishing | None = None,
    ) -> None:
        self._finishing = finishing
        self._segmenter = segmenter
        self._batcher = batcher
        self._pool = pool
        self._limits = limits
        self._metrics = metrics

    @property
    def tells_speakers(self) -> bool:
        return self._finishing is not None and self._finishing.speakers is not None

    async def run(
        self,
        file: IO[bytes],
        said: Stated,
        options: RecognitionOptions,
        emit: Callable[[Recognized], None],
    ) -> Heard:
        """Recognize a file, handing each segment's answer to ``emit`` in order.

        Takes the file over: it is closed once it is read, while its last segments still wait.

        Returns what the file was. Cancelling it gives up the place in the queue at once.

        Raises:
            InvalidRequestError: the file cannot be decoded, or is over a limit.
            OverloadedError: the queue is full.
            ModelFailedError: the model raised.
        """
        started = time.monotonic()
        first = True

        def emit_and_time(result: Recognized) -> None:
            nonlocal first
            if first:
                self._metrics.first_segment.observe(time.monotonic() - started)
                first = False
            emit(result)

        stages = [] if self._finishing is None else self._finishing.stages(options)
        delivery = _Delivery(stages, emit_and_time, self._pool)
        reading = _Reading(file, said, self._limits, self._segmenter)
        try:
            expected = await self._on_pool(reading.open)
            with self._batcher.admit(options, delivery.put, expected) as ticket:
                seconds = 0.0
                finished = False
                while not finished:
                    await ticket.room()
                    step = await self._on_pool(reading.step)
                    seconds += step.seconds
                    self._metrics.audio_in.add(step.seconds)
                    ticket.decoded(step.seconds)
                    for segment in step.segments:
                        ticket.submit(segment)
                    finished = step.finished
                await self._on_pool(reading.close)
                await ticket.drained()
                await delivery.finish()
        finally:
            await delivery.close()
            if not reading.closed:  # a place on the pool is waited for
                await self._on_pool(reading.close)
        if seconds:
            self._metrics.real_time_factor.observe((time.monotonic() - started) / seconds)
        return reading.heard

    async def _on_pool(self, function: Callable[[], Result]) -> Result:
        """Run on the pool. When cancelled, wait until the thread has left ``function`` first:
        what it works on is closed next."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, _guarded, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([future])
            raise


def _guarded(function: Callable[[], Result]) -> Result:
    """Whatever a damaged file makes a decoder raise is the file's fault, not the server's; what only
    a fault in the program raises stays a fault of the server."""
    try:
        return function()
    except (RequestError, MemoryError, TypeError, AttributeError, NameError, ImportError):
        raise
    except Exception as error:  # ffmpeg on hostile bytes: the client gets a 400, the log the rest
        log.exception("decoding an upload failed")
        raise bad_audio(tr("The file could not be decoded")) from error

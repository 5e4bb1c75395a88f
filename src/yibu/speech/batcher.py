"""The one way to the model: a bounded, fair queue, batches across requests, and a worker for each
computation that the model takes at once. The workers' threads are given from outside, because the
model is loaded on one of them.

What a live session has finished goes first, then utterances that are about to end; files and the
partial texts of live sessions share what is left. Everything but the model's own computing happens on
the event loop, so the state needs no locks.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import count
from typing import Self

from yibu.errors import OverloadedError, RequestError
from yibu.speech.jobs import Answer, Job, work_off
from yibu.speech.live.partials import PartialQueue
from yibu.speech.metrics import SpeechMetrics
from yibu.speech.queueing import FairQueue
from yibu.speech.settings import EngineLimits
from yibu.speech.types import RecognitionOptions, Recognized, Recognizer, Segment

_SMOOTHING = 0.3
"""Weight of the newest batch in the estimate of the model's speed."""


class Ticket:
    """One request's place at the model; a context manager that frees the place.

    Results are handed to ``emit`` in the order of ``submit``, on the event loop.
    """

    def __init__(
        self,
        batcher: Batcher,
        number: int,
        options: RecognitionOptions,
        emit: Callable[[Recognized], None],
        expected: float,
    ) -> None:
        self.number = number
        self.options = options
        self.expected = expected
        """Seconds of audio still expected."""
        self.open = True
        self._batcher = batcher
        self._emit = emit
        self._submitted = self._emitted = 0
        self._early: dict[int, Recognized] = {}
        self._queued = 0.0
        self._failure: RequestError | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False
        self._batcher.release(self)

    @property
    def weight(self) -> float:
        """Seconds of audio for which this request counts in the queue, at most its window."""
        return min(self._queued + self.expected, self._batcher.limits.window_seconds)

    def decoded(self, seconds: float) -> None:
        """Reduce the expected audio by what was decoded."""
        self.expected = max(0.0, self.expected - seconds)

    def submit(self, segment: Segment) -> None:
        self._queued += segment.duration
        deliver = partial(self._deliver, self._submitted, segment.duration)
        job = Job(segment.duration, self.options, lambda: segment, deliver)
        self._batcher.enqueue(self.number, job)
        self._submitted += 1

    async def room(self) -> None:
        """Wait until less than the window is queued. Raises what the model raised."""
        await self._until(lambda: self._queued < self._batcher.limits.window_seconds)

    async def drained(self) -> None:
        """Wait until everything submitted was emitted. Raises what the model raised."""
        self.expected = 0.0
        await self._until(lambda: self._emitted == self._submitted)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while self._failure is None and not condition():
            self._changed.clear()
            await self._changed.wait()
        if self._failure is not None:
            raise self._failure

    def _deliver(self, number: int, seconds: float, result: Answer) -> None:
        """Take the answer to segment ``number``."""
        if not self.open:
            return
        self._queued -= seconds
        if isinstance(result, RequestError):
            self._failure = self._failure or result
        else:
            self._early[number] = result
            while self._emitted in self._early:
                self._emit(self._early.pop(self._emitted))
                self._emitted += 1
        self._changed.set()


class Batcher:
    """Admits requests, and feeds their segments to the recognizer in batches."""

    def __init__(
        self,
        recognizer: Recognizer,
        threads: Sequence[Executor],
        limits: EngineLimits,
        metrics: SpeechMetrics,
    ) -> None:
        """Each of ``threads`` is an executor of one thread; all of them may call the recognizer at
        once."""
        self.limits = limits
        self._recognizer = recognizer
        self._threads = threads
        self._parallel = len(threads)
        self._metrics = metrics
        self._queue: FairQueue[Job] = FairQueue()
        self._finals: FairQueue[Job] = FairQueue()
        """Final segments of live sessions."""
        self.partials: PartialQueue | None = None
        """Live sessions whose open utterance may be recognized once more."""
        self._files_next = False
        """Whether files go next: files and partial texts alternate where both wait."""
        self._tickets: dict[int, Ticket] = {}
        self._numbers = count()
        self._arrived = asyncio.Event()
        self._speed: float | None = None
        """Audio seconds a second, of one worker."""
        self._computing: dict[int, float] = {}
        """Start time of each running computation, by worker."""
        self._spare = 0
        """Workers busy with partial texts."""
        metrics.gauge("queue_seconds", "Audio that waits for the model.", self._waiting_seconds)
        metrics.gauge("queue_segments", "Segments that wait.", lambda: float(len(self._queue)))
        metrics.gauge("speed", "Audio seconds a second of computing.", self._whole_speed)

    @property
    def stalled(self) -> bool:
        """Whether one batch has been computing for longer than any batch should."""
        earliest = min(self._computing.values(), default=math.inf)
        return time.monotonic() - earliest > self.limits.stall_seconds

    def admit(
        self, options: RecognitionOptions, emit: Callable[[Recognized], None], expected: float
    ) -> Ticket:
        """A place for a request with about ``expected`` seconds of audio.

        Raises:
            OverloadedError: the queue is full.
        """
        waiting = self._waiting_seconds()
        if waiting >= self.limits.queue_seconds:
            raise OverloadedError(
                "The queue is full: {waiting:.0f} s of audio wait, {queue_seconds:.0f} s "
                "is the limit",
                waiting=waiting,
                queue_seconds=self.limits.queue_seconds,
                retry_after=self.retry_after(),
            )
        ticket = Ticket(self, next(self._numbers), options, emit, expected)
        self._tickets[ticket.number] = ticket
        return ticket

    def retry_after(self) -> float:
        """Seconds until about a quarter of the queue is worked off, at least 1."""
        seconds = 0.25 * self._waiting_seconds() / (self._whole_speed() or 1.0)
        return float(max(1, math.ceil(seconds)))

    def enqueue(self, flow: int, job: Job) -> None:
        self._queue.push(flow, job.seconds, job)
        self._arrived.set()

    def enqueue_final(self, flow: int, job: Job) -> None:
        """Queue a live session's finished speech, before everything else."""
        self._finals.push(flow, job.seconds, job)
        self._arrived.set()

    def drop_finals(self, flow: int) -> None:
        """Drop a live session's queued segments."""
        self._finals.drop(flow)

    def wake(self) -> None:
        """Check ``partials`` again."""
        self._arrived.set()

    def release(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.number, None)
        self._queue.drop(ticket.number)

    async def run(self) -> None:
        """Feed the model until cancelled; the loop's owner runs this as one task."""
        async with asyncio.TaskGroup() as workers:
            for number in range(self._parallel):
                workers.create_task(self._work(number), name=f"model worker {number}")

    async def _work(self, number: int) -> None:
        while True:
            batch = self._next()
            if batch:
                await self._compute(number, batch)
            else:
                self._arrived.clear()
                await self._arrived.wait()

    def _next(self) -> list[Job]:
        live = self.partials is not None and bool(self.partials)
        seconds = self._batch_seconds(self.limits.live_batch_time)
        if len(self._finals):
            return self._finals.take(seconds)
        if self.partials is not None:
            room = self._spare < max(1, self._parallel - 1)  # a sentence that ends finds a worker
            turn = not (self._files_next and len(self._queue))
            if jobs := self.partials.take(seconds, firsts=turn, further=turn and room):
                self._files_next |= jobs[0].spare
                return jobs
        self._files_next = False
        return self._queue.take(seconds if live else self._batch_seconds(self.limits.batch_time))

    def computing_seconds(self, seconds: float) -> float:
        """A worker's estimated time for so much audio."""
        return seconds / self._speed if self._speed else 0.0

    def _whole_speed(self) -> float:
        return (self._speed or 0.0) * self._parallel

    def _waiting_seconds(self) -> float:
        return sum(ticket.weight for ticket in self._tickets.values())

    def _batch_seconds(self, batch_time: float) -> float:
        """The amount of audio that a worker computes in a batch's target time."""
        if self._speed is None:
            return 0.0
        return min(self.limits.batch_seconds, self._speed * batch_time)

    async def _compute(self, number: int, batch: Sequence[Job]) -> None:
        seconds = sum(job.seconds for job in batch)
        spare = batch[0].spare
        self._spare += spare
        self._computing[number] = started = time.monotonic()
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._threads[number], work_off, self._recognizer, batch
            )
        finally:
            del self._computing[number]
            self._spare -= spare
        elapsed = max(time.monotonic() - started, 1e-6)
        newest = seconds / elapsed
        self._speed = (
            newest
            if self._speed is None
            else (_SMOOTHING * newest + (1 - _SMOOTHING) * self._speed)
        )
        if self.partials is not None and spare:
            for pause in self.partials.computed(elapsed):
                asyncio.get_running_loop().call_later(pause, self.wake)
        self._metrics.model_seconds.add(elapsed)
        self._metrics.batch_size.observe(len(batch))
        self._metrics.batch_seconds.observe(seconds)
        for job, result in zip(batch, results, strict=True):
            if isinstance(result, RequestError):
                self._metrics.model_failures.add()
            elif job.final:
                self._metrics.audio_out.add(job.seconds)
            job.deliver(result)

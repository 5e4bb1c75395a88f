"""One live session, without sockets: samples in; utterances with partial and final texts out.

With endpointing each utterance that the VAD finds is a text of its own. Without, the client says
where a text ends, and what it said until then is cut and recognized as a file would be, as it comes.
All of it goes through the one batcher. Methods are called one after another, on the event loop; what
computes runs on a small pool of threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TypeVar

import numpy as np

from yibu.errors import RequestError
from yibu.speech.jobs import Answer, Job
from yibu.speech.live.finals import Finals
from yibu.speech.live.hypotheses import Hypotheses, Reheard, Streamed
from yibu.speech.live.partials import NOT_DUE
from yibu.speech.live.speakers import LiveSpeakers
from yibu.speech.live.tools import LiveTools
from yibu.speech.live.utterance import Early, Listener, Utterance, span
from yibu.speech.types import (
    SAMPLE_RATE,
    Chunking,
    Endpointing,
    RecognitionOptions,
    Recognized,
    Samples,
    Segment,
    SpeechBegan,
)

_STEP = SAMPLE_RATE // 10
"""Samples of speech that are listened to at once, where the VAD can find nothing in fewer."""
_AT_ONCE = SAMPLE_RATE // 4
"""Samples that take less to listen to than to hand to another thread: some 0.3 ms."""
_SPARE, _EARLIEST = 0.03, 0.2
"""Seconds more than an utterance takes, and at most, that it is recognized before its end is certain: most
pauses are short, and end before that."""
_BLOCK = 8 * SAMPLE_RATE
"""And at most, of what comes in a burst."""
_WINDOW_SECONDS = 60.0
"""Of finished speech that may wait for the model; then the client waits."""

Result = TypeVar("Result")
_flows = count()


class LiveSession:
    """One session; see the module. Always ``close`` it."""

    def __init__(
        self,
        tools: LiveTools,
        listener: Listener,
        options: RecognitionOptions,
        endpointing: Endpointing | None,
        interval: float = 0.4,
        chunking: Chunking | None = None,
        *,
        streamed_finals: bool = False,
    ) -> None:
        """``interval`` is the seconds between two partial texts, where the machine allows; ``chunking``
        the streaming model's. ``streamed_finals``: where there is one, final texts are its too.

        Raises:
            UnsupportedError: the model's VAD does not work on a stream.
        """
        self.options = options
        self.seconds = 0.0
        """Seconds of audio so far."""
        self.buffered = 0.0
        """Seconds of audio since the last text ended."""
        self.heard_at = 0.0
        self.due = NOT_DUE
        self.cost = 0.0
        self.news = self.shows = False
        self._tools, self._listener, self._interval = tools, listener, interval
        self._chunking = chunking or Chunking()
        self._streamed_finals = streamed_finals and tools.streaming is not None
        speakers = LiveSpeakers() if tools.tells_speakers else None
        self._finals = Finals(listener, speakers, tools.pool)
        self._open_seconds = 0.0
        self._endpointing = endpointing
        self._flow = next(_flows)
        self._lock = threading.Lock()
        """Guards the detector: the model's threads read its open speech."""
        self._pending: list[Samples] = []
        self._held = 0
        self._open: Utterance | None = None
        self._finished = False
        self._waiting = 0.0
        self._listened = 0.0
        self._restart()

    @property
    def told_all(self) -> bool:
        """Whether the audio is over and every final text was delivered."""
        return self._finished and not self._finals

    def _restart(self) -> None:
        """Begin a new stream at the present position."""
        segmenter = self._tools.segmenter
        self._origin = self._listened
        self._detector = None
        self._cutter = None
        self._uneventful = _STEP - 1
        """The number of next samples in which the VAD can find nothing."""
        if self._endpointing is None:
            self._cutter = segmenter.session()
        else:
            self._detector = segmenter.utterances(self._endpointing)
        self._open = None
        self._ending: Segment | None = None
        """The open utterance as it ends if the present silence goes on."""
        self.due = NOT_DUE
        self.buffered = 0.0

    async def configure(self, options: RecognitionOptions, endpointing: Endpointing | None) -> None:
        """Change the settings; speech so far is kept unless the endpointing changes."""
        self.options = options
        if endpointing != self._endpointing:
            await self._listen(flush=True)
            self._forget_open()
            self._endpointing = endpointing
            self._restart()

    async def hear(self, samples: Samples) -> None:
        """Take the next samples. Waits while too much of this session waits for the model."""
        self._finished = False
        self._pending.append(samples)
        self._held += len(samples)
        seconds = len(samples) / SAMPLE_RATE
        self.seconds += seconds
        self.buffered += seconds
        if self._held > self._uneventful or (self._open is not None and self._held >= _STEP):
            await self._listen()

    async def commit(self, committed: Callable[[Utterance], None]) -> None:
        """The text ends here: it is what was said since the last one. ``committed`` is called
        before its final text is told."""
        await self._listen(flush=True)
        rest = await self._on_pool(self._finish)
        utterance = self._open or self._begin(self._listened - self.buffered)
        for found in rest:
            if isinstance(found, Segment):
                self._submit(utterance, found)
        committed(utterance)
        self._close(utterance, self._listened)
        self._restart()

    async def finish(self) -> None:
        """End the audio, and speech that is still open."""
        await self._listen(flush=True)
        rest = await self._on_pool(self._finish)
        self._finished = True
        self._take(rest)
        self._restart()

    def clear(self) -> Utterance | None:
        """Drop the open speech, and return it."""
        self._pending, self._held = [], 0
        self._listened = self.seconds
        forgotten = self._open
        self._forget_open()
        self._restart()
        return forgotten

    async def drained(self) -> None:
        """Wait until every final text was delivered."""
        while self._finals and not (self._open and len(self._finals) == 1):
            await self._change()

    def close(self) -> None:
        """Cancel everything in progress."""
        self._withdraw()
        self._tools.batcher.drop_finals(self._flow)
        self._open = None
        self._finals.close()

    # Listening ------------------------------------------------------------------------------

    async def _listen(self, *, flush: bool = False) -> None:
        while self._waiting > _WINDOW_SECONDS:
            await self._change()
        if not self._pending:
            return
        samples = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending)
        self._pending, self._held = [], 0
        for at in range(0, len(samples), _BLOCK):
            block = samples[at : at + _BLOCK]
            if len(block) <= _AT_ONCE:
                self._take(self._detect(block))
            else:
                self._take(await self._on_pool(partial(self._detect, block)))
            self._listened += len(block) / SAMPLE_RATE
        if not flush:
            self._want_partial()

    def _detect(self, samples: Samples) -> list[SpeechBegan | Segment]:
        with self._lock:
            if self._cutter is not None:
                return [*self._cutter.feed(samples)]
            assert self._detector is not None
            found = self._detector.feed(samples)
            self._ending = self._detector.ending()
            self._uneventful = self._detector.uneventful
            return found

    def _finish(self) -> list[SpeechBegan | Segment]:
        with self._lock:
            if self._cutter is not None:
                return [*self._cutter.finish()]
            assert self._detector is not None
            return self._detector.finish()

    def _take(self, found: list[SpeechBegan | Segment]) -> None:
        for one in found:
            if isinstance(one, SpeechBegan):
                self._listener.began(self._begin(self._origin + one.start))
            elif self._cutter is not None:
                self._submit(self._open or self._begin(self._origin), one)
            elif (utterance := self._open) is not None:
                self._submit(utterance, one)
                self._open = None
                self.buffered = max(0.0, self.seconds - self._origin - one.end)
                self._listener.ended(utterance)
                self._close(utterance, self._origin + one.end)

    def _begin(self, start: float) -> Utterance:
        utterance = self._open = Utterance(start, self._hypotheses())
        self._finals.add(utterance)
        self.heard_at = time.monotonic()
        return utterance

    def _hypotheses(self) -> Hypotheses:
        if self._tools.streaming is not None:
            return Streamed(self._tools.streaming, self._chunking, finals=self._streamed_finals)
        return Reheard(self._interval, windowed=self._tools.recognizer.tells_times)

    def _close(self, utterance: Utterance, end: float) -> None:
        self._withdraw()
        utterance.end = end
        utterance.whole = True
        self._finals.tell()

    # Final texts ----------------------------------------------------------------------------

    def _submit(self, utterance: Utterance, segment: Segment) -> None:
        moved = self._moved(segment)
        utterance.end = moved.end
        number = len(utterance.segments)
        utterance.segments.append(None)
        self._waiting += moved.duration
        deliver = partial(self._recognized, utterance, number, moved.duration, time.monotonic())
        early, utterance.early = utterance.early, None
        options = self._final_options
        if early is None or not early.fits(moved, options):
            whole = utterance.hypotheses.whole
            job = Job(moved.duration, options, lambda: moved, deliver, recognize=whole)
            self._tools.batcher.enqueue_final(self._flow, job)
            return
        self._tools.metrics.audio_out.add(moved.duration)
        if early.result is None:
            early.deliver = deliver
        else:
            deliver(early.result)

    @property
    def _final_options(self) -> RecognitionOptions:
        """An utterance is punctuated by itself; what the client commits is a text too. Speakers are cut
        by the times of words."""
        speakers = self._tools.tells_speakers
        return replace(
            self.options,
            punctuated=self.options.use_itn,
            speakers=speakers,
            words=self.options.words or speakers,
        )

    def _recognized(
        self, utterance: Utterance, number: int, seconds: float, since: float, result: Answer
    ) -> None:
        self._waiting -= seconds
        delay = time.monotonic() - since
        self._tools.metrics.final_delay.observe(delay)
        self._tools.partials.final_came(delay)
        if isinstance(result, RequestError):
            utterance.error = utterance.error or result
            result = Recognized("", 0.0, 0.0)
        utterance.segments[number] = result
        self._finals.tell()

    # Partial texts --------------------------------------------------------------------------

    def _want_partial(self) -> None:
        utterance = self._open
        if utterance is None or self._detector is None:
            return
        self._open_seconds = self._listened - utterance.start
        hypotheses = utterance.hypotheses
        now, share = time.monotonic(), self._tools.partials.share
        if self._streamed_finals:
            self._ending = None
        self.news = hypotheses.wanted(self._open_seconds, now - self.heard_at, share)
        self.cost = self._open_seconds - hypotheses.skipped
        self.shows = bool(hypotheses.shown)
        self.due = NOT_DUE
        if self._ending is not None:
            early = utterance.early
            if early is not None and early.span == span(self._moved(self._ending)):
                self.news = False
            else:
                takes = self._tools.batcher.computing_seconds(self._ending.duration)
                left = self._uneventful / SAMPLE_RATE - min(_EARLIEST, takes + _SPARE)
                self.due = now + left
                asyncio.get_running_loop().call_later(max(0.0, left), self._tools.batcher.wake)
        if self.news or self.due != NOT_DUE:
            self._tools.partials.offer(self)
            self._tools.batcher.wake()
        else:
            self._withdraw()

    def recognize_again(self) -> list[Job]:
        utterance = self._open
        assert utterance is not None
        self.heard_at = time.monotonic()
        if self._ending is not None and self.due <= self.heard_at:
            segment = self._moved(self._ending)
            options = self._final_options
            early = utterance.early = Early(span(segment), options)
            deliver = partial(self._heard, utterance, early)
            return [Job(segment.duration, options, lambda: segment, deliver, final=False)]
        return utterance.hypotheses.jobs(
            self._open_seconds,
            self.options,
            partial(self._speech, utterance),
            partial(self._heard, utterance, None),
        )

    def _speech(self, utterance: Utterance) -> Segment:
        """The speech of an open utterance; called on a thread of the model's."""
        with self._lock:
            speech = self._detector.speech() if self._detector is not None else None
        if speech is not None:
            moved = self._moved(speech)
            if abs(moved.start - utterance.start) < 0.01:
                return moved
        return Segment(0.0, np.zeros(_STEP, np.float32))  # it has just ended

    def _moved(self, segment: Segment) -> Segment:
        """``segment`` with the time of the session, not of the detector's stream."""
        return replace(segment, start=self._origin + segment.start)

    def _heard(self, utterance: Utterance, early: Early | None, result: Answer) -> None:
        if early is not None:
            early.result = result
            if early.deliver is not None:
                early.deliver(result)
        if utterance is not self._open or isinstance(result, RequestError):
            return
        self._tools.metrics.partials.add()
        hypotheses = utterance.hypotheses
        new = hypotheses.heard(result) if early is None else hypotheses.heard_whole(result)
        if new:
            self._listener.partial(utterance, new)

    def _withdraw(self) -> None:
        self._tools.partials.withdraw(self)

    def _forget_open(self) -> None:
        self._withdraw()
        if self._open is not None:
            self._finals.remove(self._open)
            self._open = None

    async def _change(self) -> None:
        """Wait for the next delivery."""
        self._finals.changed.clear()
        await self._finals.changed.wait()

    async def _on_pool(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._tools.pool, function)

"""A live session in this process, with the tiny SenseVoice and the real FSMN-VAD."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")

from tests.speech.live.conftest import Clip  # noqa: E402
from yibu.speech.batcher import Batcher  # noqa: E402
from yibu.speech.jobs import Job  # noqa: E402
from yibu.speech.live.partials import NOT_DUE, PartialQueue  # noqa: E402
from yibu.speech.live.session import LiveSession  # noqa: E402
from yibu.speech.live.tools import LiveTools  # noqa: E402
from yibu.speech.live.utterance import Utterance  # noqa: E402
from yibu.speech.loading import Loaded, load  # noqa: E402
from yibu.speech.metrics import SpeechMetrics  # noqa: E402
from yibu.speech.settings import EngineLimits, SpeechSettings  # noqa: E402
from yibu.speech.types import Endpointing, RecognitionOptions, Recognized, Segment  # noqa: E402
from yibu.speech.vad.fsmn import FsmnVad  # noqa: E402

STEP = 1600
SECONDS = 120.0


class Counting:
    """The recognizer, and the lengths of what it was given."""

    def __init__(self, loaded: Loaded) -> None:
        self._recognizer = loaded.recognizer
        self.heard: list[float] = []

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[RecognitionOptions]
    ) -> list[Recognized]:
        self.heard += [segment.duration for segment in segments]
        return self._recognizer.recognize(segments, options)


class Unhurried(PartialQueue):
    """On a busy machine final texts are late, and partial ones would be left out."""

    def final_came(self, delay: float) -> None: ...


class Listening:
    def __init__(self) -> None:
        self.finals: list[Utterance] = []
        self.partials: list[str] = []

    def began(self, utterance: Utterance) -> None: ...

    def ended(self, utterance: Utterance) -> None: ...

    def partial(self, utterance: Utterance, new: str) -> None:
        self.partials.append(new)

    def final(self, utterance: Utterance) -> None:
        self.finals.append(utterance)


@dataclass
class Setup:
    tools: LiveTools
    counting: Counting
    loaded: Loaded

    async def idle(self) -> None:
        """Wait until the model has done all that waits."""
        deadline = time.monotonic() + SECONDS
        batcher = self.tools.batcher
        while len(self.tools.partials) or batcher._computing or len(batcher._finals):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def loaded(sensevoice_dir: Path, vad_dir: Path) -> Loaded:
    return load(SpeechSettings(sensevoice_dir, vad=vad_dir, threads=2))


@asynccontextmanager
async def running(loaded: Loaded) -> AsyncIterator[Setup]:
    counting = Counting(loaded)
    with (
        ThreadPoolExecutor(1) as one,
        ThreadPoolExecutor(1) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        metrics = SpeechMetrics()
        assert loaded.parallel == 2
        batcher = Batcher(counting, [one, other], EngineLimits(), metrics)  # type: ignore[arg-type]
        batcher.partials = partials = Unhurried()
        task = asyncio.create_task(batcher.run())
        tools = LiveTools(
            loaded.segmenter, batcher, partials, pool, metrics, loaded.recognizer,
            loaded.tells_speakers, loaded.streaming,
        )  # fmt: skip
        yield Setup(tools, counting, loaded)
        task.cancel()
        await asyncio.wait({task})


def spoken(clip: Clip, silence: float = 1.0):
    quiet = np.zeros(int(silence * 16000), np.float32)
    return np.concatenate([quiet, clip.samples, quiet])


@pytest.mark.parametrize("chunk", [160, 960, 4000])
def test_an_utterance_is_known_before_it_ends(vad_dir: Path, clips: list[Clip], chunk: int) -> None:
    vad = FsmnVad.load(vad_dir, samples=False)
    for clip in clips:
        detector = vad.utterances(Endpointing())
        samples = spoken(clip)
        known: list[tuple[int, Segment]] = []
        for at in range(0, len(samples), chunk):
            ends = [e for e in detector.feed(samples[at : at + chunk]) if isinstance(e, Segment)]
            if ends:
                break
            if (ending := detector.ending()) is not None:
                known.append((at, ending))
        [final] = ends
        last = [
            (when, e) for when, e in known if (e.start, e.length) == (final.start, final.length)
        ]
        assert last, "it was not known"
        assert np.array_equal(last[0][1].features, final.features)
        assert at - last[0][0] >= 0.2 * 16000
        assert detector.ending() is None


async def test_the_final_text_is_there_when_the_utterance_ends(
    loaded: Loaded, clips: list[Clip]
) -> None:
    """Where the model has time, it is recognized in the silence, once, and as a file would be."""
    async with running(loaded) as setup:
        for clip in clips:
            listening = Listening()
            session = LiveSession(
                setup.tools, listening, RecognitionOptions(words=True), Endpointing()
            )
            samples = spoken(clip)
            for at in range(0, len(samples), STEP):
                before = len(setup.counting.heard)
                await session.hear(samples[at : at + STEP])
                if listening.finals:
                    break
                await setup.idle()
            [utterance] = listening.finals
            [recognized] = utterance.recognized
            assert len(setup.counting.heard) == before, "it was recognized after its end"
            segment = Segment(
                recognized.start,
                samples[round(recognized.start * 16000) : round(recognized.end * 16000)],
            )
            [alone] = loaded.recognizer.recognize([segment], [RecognitionOptions(words=True)])
            assert recognized.tokens == alone.tokens
            assert recognized.words == alone.words
            assert recognized.text in (clip.text, alone.text)
            session.close()


async def test_many_at_once_have_their_own_texts(loaded: Loaded, clips: list[Clip]) -> None:
    """In a burst nothing is recognized early in time; what was in flight is not mixed up."""
    async with running(loaded) as setup:

        async def one(clip: Clip) -> None:
            listening = Listening()
            session = LiveSession(setup.tools, listening, RecognitionOptions(), Endpointing())
            samples = np.concatenate([spoken(clip), spoken(clip)])
            for at in range(0, len(samples), STEP):
                await session.hear(samples[at : at + STEP])
            await session.finish()
            await session.drained()
            texts = [utterance.text for utterance in listening.finals]
            found = loaded.segmenter.utterances(Endpointing())
            expected = [e for e in found.feed(samples) if isinstance(e, Segment)]
            answers = [
                loaded.recognizer.recognize([e], [RecognitionOptions()])[0].text for e in expected
            ]
            assert texts == answers
            session.close()

        await asyncio.gather(*(one(clip) for clip in clips * 2))


async def test_minutes_in_one_session_take_no_more_memory(
    loaded: Loaded, clips: list[Clip]
) -> None:
    """As fast as the model is: the first minutes fill what is kept, the others add nothing."""
    samples = np.concatenate([spoken(clip, 0.7) for clip in clips])
    async with running(loaded) as setup:
        listening = Listening()
        session = LiveSession(setup.tools, listening, RecognitionOptions(words=True), Endpointing())

        async def speak(minutes: float) -> None:
            end = session.seconds + 60 * minutes
            while session.seconds < end:
                for at in range(0, len(samples), 8 * STEP):
                    await session.hear(samples[at : at + 8 * STEP])
                listening.finals.clear()
                listening.partials.clear()

        await speak(0.25)
        tracemalloc.start()
        await speak(0.25)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        await speak(1.5)
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert session.seconds >= 2 * 60
        session.close()
    assert after - before < 2**20, f"{(after - before) / 2**20:.2f} MiB are kept"
    assert peak - before < 32 * 2**20, f"{(peak - before) / 2**20:.2f} MiB at the most"


class Waiting:
    """A candidate."""

    def __init__(
        self, name: str, *, heard_at: float = 0.0, due: float = NOT_DUE, seconds: float = 1.0,
        shows: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.heard_at, self.due = name, heard_at, due
        self.cost, self.shows, self.news = seconds, shows, due == NOT_DUE

    def recognize_again(self) -> list[Job]:
        segment = Segment(0.0, np.zeros(1, np.float32))
        return [
            Job(self.cost, RecognitionOptions(prompt=self.name), lambda: segment, lambda _: None)
        ]


def names(jobs: Sequence[Job]) -> list[str]:
    return [job.options.prompt or "" for job in jobs]


def take(queue: PartialQueue, seconds: float = 100.0, **which: bool) -> list[str]:
    return names(queue.take(seconds, **{"firsts": True, "further": True, **which}))


def test_what_is_about_to_end_goes_by_itself_and_before_further_texts() -> None:
    queue = PartialQueue(lambda: 10.0)
    queue.offer(Waiting("soon", due=10.1))
    queue.offer(Waiting("old", heard_at=1.0, shows=True))
    queue.offer(Waiting("older", heard_at=0.5, shows=True))
    queue.offer(Waiting("later", due=9.0, heard_at=3.0))
    queue.offer(Waiting("next", due=8.0, heard_at=5.0))
    assert take(queue) == ["next", "later"]
    assert take(queue, further=False) == []
    assert take(queue, 2.5) == ["older"]
    assert take(queue, 0.0) == ["old"]
    assert take(queue) == []


def test_a_first_text_waits_for_an_end_only_where_final_texts_are_late() -> None:
    for late, order in (False, ["new", "ending"]), (True, ["ending", "new"]):
        now = 10.0
        queue = PartialQueue(lambda: now)  # noqa: B023 - used within the turn
        for _ in range(3 * late):
            queue.final_came(0.5)
        queue.offer(Waiting("new"))
        queue.offer(Waiting("ending", due=9.0))
        assert [*take(queue, further=False), *take(queue, further=False)] == order
        queue.offer(Waiting("new"))
        assert take(queue, firsts=False) == []


def test_a_first_text_goes_before_further_ones_and_a_short_one_before_a_long_one() -> None:
    queue = PartialQueue()
    queue.offer(Waiting("shown", heard_at=1.0, shows=True))
    queue.offer(Waiting("long", heard_at=2.0, seconds=9.0))
    queue.offer(Waiting("short", heard_at=2.1))
    queue.offer(Waiting("new"))
    assert take(queue) == ["new", "short", "long", "shown"]


def test_partial_texts_become_rarer_while_final_ones_are_late() -> None:
    """Those of utterances that show something before first ones."""
    now = 100.0
    queue = PartialQueue(lambda: now)
    queue.offer(Waiting("further", shows=True))
    assert queue.computed(0.2) == (0.0, 0.0)
    assert take(queue) == ["further"], "no final text was late"
    for _ in range(20):
        queue.final_came(0.5)
    assert queue.computed(0.2) == pytest.approx((0.2 * 4, 0.2 * 19))
    queue.offer(Waiting("first"))
    queue.offer(Waiting("further", shows=True))
    assert take(queue) == []
    queue.offer(Waiting("ending", due=100.1))
    assert take(queue) == [], "it may go on"
    now += 0.1
    assert take(queue) == ["ending"], "what ends waits for nothing"
    now += 0.71
    assert take(queue) == ["first"]
    now += 3.0
    assert take(queue) == ["further"]
    for _ in range(40):
        queue.final_came(0.0)
    assert queue.computed(0.2) == (0.0, 0.0)

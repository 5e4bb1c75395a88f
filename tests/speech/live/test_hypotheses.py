"""Partial texts: of a window of a long utterance, and of a second model that streams."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")
pytest.importorskip("av")

from tests.speech.live.conftest import SECONDS, Clip  # noqa: E402
from tests.speech.live.test_session import STEP, Listening, running, spoken  # noqa: E402
from tests.speech.models import random_models  # noqa: E402
from yibu.errors import UnsupportedError  # noqa: E402
from yibu.speech.live.funasr import FunasrConnection  # noqa: E402
from yibu.speech.live.hypotheses import Reheard, Streamed  # noqa: E402
from yibu.speech.live.session import LiveSession  # noqa: E402
from yibu.speech.loading import Loaded, load  # noqa: E402
from yibu.speech.settings import EngineLimits, SpeechSettings  # noqa: E402
from yibu.speech.transcriber import Transcriber  # noqa: E402
from yibu.speech.types import Chunking, Endpointing, RecognitionOptions, Recognized, Segment  # noqa: E402


@pytest.fixture(scope="module")
def loaded(sensevoice_dir: Path, vad_dir: Path, funasr_dir: Path) -> Loaded:
    online = funasr_dir / "online"
    return load(
        SpeechSettings(sensevoice_dir, vad=vad_dir, precision="fp32", threads=2, online=online)
    )


def test_a_long_utterance_is_not_recognized_from_its_beginning(
    loaded: Loaded, clips: list[Clip]
) -> None:
    """Half a minute without a pause that ends it, as it comes: what is recognized stays short, and what is
    shown goes on and is what was spoken."""
    for language in ("en", "zh"):
        own = [clip for clip in clips if clip.language == language] * 2
        samples = np.concatenate([clip.samples for clip in own])
        hypotheses = Reheard(0.0, windowed=True)
        shown, taken = "", []
        for at in range(8 * STEP, len(samples), 4 * STEP):
            speech = Segment(3.0, samples[:at])
            heard: list[Recognized] = []
            for job in hypotheses.jobs(
                at / 16_000, RecognitionOptions(), lambda s=speech: s, heard.append
            ):
                segment = job.segment()
                taken.append(segment.duration)
                assert abs(job.seconds - segment.duration) < 0.02
                [result] = loaded.recognizer.recognize([segment], [job.options])
                shown += hypotheses.heard(result)
                assert hypotheses.shown == shown
        assert len(samples) / 16_000 > 25
        assert max(taken) < 6.0
        spoken_text = squeezed("".join(clip.text for clip in own))
        match = SequenceMatcher(None, squeezed(shown), spoken_text, autojunk=False)
        assert match.ratio() > 0.9


def test_a_first_text_needs_no_second_one_later(loaded: Loaded, clips: list[Clip]) -> None:
    """What is computed first is of two lengths of the speech, and what both say is shown."""
    clip = next(clip for clip in clips if clip.text.startswith("nine one"))
    start, end = (int(16_000 * at) for at in clip.marks[0][1:])
    speech = Segment(3.0, clip.samples[max(0, start - 4_800) : end + 6_400])
    hypotheses = Reheard(0.4, windowed=True)
    jobs = hypotheses.jobs(speech.duration, RecognitionOptions(), lambda: speech, print)
    segments = [job.segment() for job in jobs]
    assert [segment.start for segment in segments] == [3.0, 3.0]
    assert 0.29 < segments[1].duration - segments[0].duration < 0.32
    results = loaded.recognizer.recognize(segments, [job.options for job in jobs])
    assert "".join(map(hypotheses.heard, results)) == "nine"
    [again] = hypotheses.jobs(speech.duration + 0.2, RecognitionOptions(), lambda: speech, print)
    assert again.segment().duration == speech.duration


def pieces(segment: Segment, loaded: Loaded, chunking: Chunking) -> list[str]:
    """What FunASR's streaming class says of each whole chunk (``test_online.py`` holds ours to it)."""
    assert loaded.streaming is not None
    session = loaded.streaming.session(chunking)
    whole = len(segment.samples) // session.stride
    chunks = [segment.samples[n * session.stride : (n + 1) * session.stride] for n in range(whole)]
    return [text for chunk in chunks if (text := session.text(session.feed(chunk)))]


def squeezed(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


async def test_partial_texts_of_one_model_and_final_texts_of_another(
    loaded: Loaded, clips: list[Clip]
) -> None:
    said = 0
    async with running(loaded) as setup:
        for clip in clips:
            listening = Listening()
            session = LiveSession(
                setup.tools, listening, RecognitionOptions(words=True), Endpointing()
            )
            samples = spoken(clip)
            for at in range(0, len(samples), STEP):
                await session.hear(samples[at : at + STEP])
                await setup.idle()
            [utterance] = listening.finals
            [recognized] = utterance.recognized
            begin, end = (round(t * 16_000) for t in (recognized.start, recognized.end))
            segment = Segment(recognized.start, samples[begin:end])
            [alone] = loaded.recognizer.recognize([segment], [RecognitionOptions(words=True)])
            assert (recognized.tokens, recognized.text) == (alone.tokens, alone.text)
            expected = pieces(replace(segment, samples=samples[begin:]), loaded, Chunking())
            got = [squeezed(text) for text in listening.partials]
            assert got == [squeezed(text) for text in expected[: len(got)]]
            assert len(got) >= len(pieces(segment, loaded, Chunking())) - 1
            said += len(got)
            session.close()
    assert said > 8


@pytest.mark.parametrize("mode", ["2pass", "online"])
async def test_as_funasrs_clients_ask(loaded: Loaded, clips: list[Clip], mode: str) -> None:
    chunking = Chunking(8, 4, 2, 0)
    async with running(loaded) as setup:
        tools = setup.tools
        transcriber = Transcriber(
            loaded.segmenter,
            tools.batcher,
            tools.pool,
            EngineLimits(),
            tools.metrics,
            loaded.finishing,
        )
        for clip in clips[:4]:
            told: list[dict[str, Any]] = []
            connection = FunasrConnection(
                tools, transcriber, loaded.recognizer, EngineLimits(), told.append, python=True
            )
            samples = (spoken(clip) * 32767).astype("<i2")
            try:
                await connection.handle(
                    {
                        "mode": mode, "chunk_size": [0, 8, 4], "encoder_chunk_look_back": 2,
                        "decoder_chunk_look_back": 0, "audio_fs": 16000, "is_speaking": True,
                    }
                )  # fmt: skip
                for at in range(0, len(samples), STEP):
                    await connection.handle(samples[at : at + STEP].tobytes())
                    await setup.idle()
                await asyncio.wait_for(connection.handle({"is_speaking": False}), SECONDS)
            finally:
                connection.close()
            partial = [m["text"] for m in told if not m["is_final"]]
            final = [m["text"] for m in told if m["is_final"] and m["text"]]
            floats = samples.astype(np.float32) / 32768
            cutter = loaded.segmenter.utterances(Endpointing())
            [segment] = [e for e in cutter.feed(floats) if isinstance(e, Segment)]
            begin = round(segment.start * 16_000)
            expected = pieces(Segment(0.0, floats[begin:]), loaded, chunking)
            assert partial
            assert [squeezed(t) for t in partial] == [squeezed(t) for t in expected[: len(partial)]]
            if mode == "2pass":
                [answer] = loaded.recognizer.recognize([segment], [RecognitionOptions()])
                assert final == [answer.text]
            else:
                assert loaded.streaming is not None
                session = loaded.streaming.session(chunking)
                heard = max(len(segment.samples), len(partial) * session.stride)
                whole = session.text(session.feed(floats[begin : begin + heard], final=True))
                assert squeezed("".join([*partial, *final])) == squeezed(whole)


def test_a_word_that_goes_on_in_the_next_chunk_is_said_whole(loaded: Loaded) -> None:
    class Saying:
        stride = 9_600

        def __init__(self, *chunks: list[str]) -> None:
            self._chunks = list(chunks)

        def feed(self, samples: np.ndarray, *, final: bool = False) -> list[str]:
            return self._chunks.pop(0)

        def text(self, tokens: list[str]) -> str:
            assert loaded.streaming is not None
            return loaded.streaming.session().text(tokens)

    assert loaded.streaming is not None
    streamed = Streamed(loaded.streaming, Chunking(), finals=True)
    streamed._session = Saying(["你", "hel@@"], ["lo"], ["world"])  # type: ignore[assignment]
    shown = []
    for n in (1, 2):
        [job] = streamed.jobs(
            0.6 * n, RecognitionOptions(), lambda: Segment(0.0, np.zeros(9_600, "f")), print
        )
        assert not streamed.wanted(60.0, 60.0, 1.0), "one at a time"
        assert job.recognize is not None
        shown.append(streamed.heard(job.recognize(job.segment())))
    assert shown == ["你", "hello"]
    assert streamed.whole is not None
    assert streamed.whole(Segment(0.0, np.zeros(20_000, "f"))).text == "你hello world"


def test_what_takes_no_streaming_model_says_so(vad_dir: Path, funasr_dir: Path) -> None:
    online = funasr_dir / "online"
    for model, more in ((online, {}), (funasr_dir / "seaco", {"path": "reference"})):
        with pytest.raises(UnsupportedError, match="takes no streaming model"):
            load(SpeechSettings(model, vad=vad_dir, precision="fp32", online=online, **more))


def test_a_streaming_model_alone_streams(vad_dir: Path, funasr_dir: Path) -> None:
    loaded = load(SpeechSettings(funasr_dir / "online", vad=vad_dir, precision="fp32"))
    assert loaded.streaming is not None
    [sound] = random_models.noises(1, 7)
    streamed = Streamed(loaded.streaming, Chunking(), finals=True)
    assert streamed.whole is not None
    [answer] = loaded.recognizer.recognize([Segment(0.0, sound)], [RecognitionOptions()])
    assert streamed.whole(Segment(0.0, sound)).text == answer.text

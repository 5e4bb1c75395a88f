"""Speakers of live sessions: numbered as they come, as the clustering of the whole recording numbers them."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")
pytest.importorskip("av")

from tests.speech.live.conftest import SECONDS, Clip  # noqa: E402
from tests.speech.live.test_session import running  # noqa: E402
from tests.speech.models.test_speakers import recording, same_groups  # noqa: E402
from yibu.speech.checkpoints.pytorch import read_checkpoint  # noqa: E402
from yibu.speech.live.funasr import FunasrConnection  # noqa: E402
from yibu.speech.live.realtime import Realtime  # noqa: E402
from yibu.speech.live.speakers import LiveSpeakers  # noqa: E402
from yibu.speech.loading import Loaded, load  # noqa: E402
from yibu.speech.models.campplus import SpeakerNetwork  # noqa: E402
from yibu.speech.models.speakers import (  # noqa: E402
    clustered,
    in_order,
    name_of,
    number_of,
)
from yibu.speech.settings import EngineLimits, SpeechSettings  # noqa: E402
from yibu.speech.stages import Finishing, FinishingRecognizer, SpeakerStage  # noqa: E402
from yibu.speech.transcriber import Transcriber  # noqa: E402
from yibu.speech.types import Endpointing, RecognitionOptions, Recognized, Segment, Voice  # noqa: E402
from yibu.speech.vad.fsmn import FsmnVad  # noqa: E402


def told(voices: list[Voice], size: int) -> list[str]:
    """The speaker of each voice, told in utterances of ``size``."""
    speakers = LiveSpeakers()
    found: list[str] = []
    for at in range(0, len(voices), size):
        part = voices[at : at + size]
        result = Recognized("x", part[0].start, part[-1].end, voices=tuple(part))
        [answer] = speakers.told([result])
        assert answer.voices == ()
        found += [str(answer.speaker)] * len(part)
    return found


def test_speakers_are_those_of_the_whole_recording() -> None:
    for seed in range(6):
        voices, truth = recording(seed)
        names = told(voices, 5)
        numbers = np.array([number_of(name) for name in names])
        assert numbers.tolist() == in_order(truth).tolist(), f"recording {seed}"
        if len(voices) >= 20:
            offline = clustered(np.stack([voice.vector for voice in voices]))
            assert same_groups(numbers, offline)


def test_names_and_numbers() -> None:
    assert [name_of(number) for number in (0, 1, 25, 26, 27, 701, 702)] == [
        "A", "B", "Z", "AA", "AB", "ZZ", "AAA",
    ]  # fmt: skip
    assert [number_of(name_of(number)) for number in range(800)] == list(range(800))


def test_hours_keep_numbers_and_take_no_more_memory() -> None:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((4, 192))
    speakers = LiveSpeakers()
    held = []
    for n in range(120):
        who = (0, 1, 2, 0)[n % 4] if n < 100 else 3  # D comes late
        vectors = (centres[who] + 0.7 * rng.standard_normal((6, 192))).astype(np.float32)
        voices = tuple(Voice(n * 9.0 + k, n * 9.0 + k + 1.5, v) for k, v in enumerate(vectors))
        [answer] = speakers.told([Recognized("x", n * 9.0, n * 9.0 + 7, voices=voices)])
        assert answer.speaker == name_of(who), n
        assert speakers._vectors is not None
        held.append(speakers._vectors.nbytes)
    assert max(held) <= 270 * 192 * 4


def test_a_mistake_of_the_first_seconds_is_not_repeated() -> None:
    """Two voices too much alike for the first rule are told apart once they can be clustered; what was
    told stays."""
    rng = np.random.default_rng(1)
    shared, one, other = rng.standard_normal((3, 192))
    voices = []
    for n in range(12):
        centre = shared + 0.95 * (one if n % 2 == 0 else other)
        voices += [
            Voice(n * 6.0 + k, n * 6.0 + k + 1.5, v.astype(np.float32))
            for k, v in enumerate(centre + 0.3 * rng.standard_normal((4, 192)))
        ]
    names = told(voices, 4)[::4]
    assert names[:2] == ["A", "A"]
    assert len(set(names[-6:])) == 2
    assert names[-6:] == [names[-6], names[-5]] * 3


@pytest.fixture(scope="module")
def two_voices(clips: list[Clip]) -> list[Clip]:
    """Clips of a voice, and others of the same made higher: as two people in turn."""
    first = [clips[n] for n in (0, 3, 5)]
    higher = []
    for clip in (clips[4], clips[1], clips[7]):
        at = np.arange(0, len(clip.samples), 1.6)
        samples = np.interp(at, np.arange(len(clip.samples)), clip.samples).astype(np.float32)
        higher.append(Clip(clip.name, clip.language, samples, clip.marks))
    return [clip for pair in zip(first, higher, strict=True) for clip in pair]


@pytest.fixture(scope="module")
def network(funasr_dir: Path, two_voices: list[Clip]) -> SpeakerNetwork:
    """The random CAM++ with a last layer that was fitted to tell these two voices apart."""
    weights = dict(read_checkpoint(funasr_dir / "speakers" / "model.pt").tensors)
    plain = SpeakerNetwork(weights, threads=1)
    vectors, voices = [], []
    for n, clip in enumerate(two_voices):
        for shift in range(0, 12_000, 3_000):
            sound = np.concatenate([np.zeros(shift, np.float32), clip.samples])
            found = [voice.vector for voice in plain.voices(Segment(0.0, sound))]
            vectors += found
            voices += [1.0 if n % 2 == 0 else -1.0] * len(found)
    seen = np.stack([np.append(vector, 100.0) for vector in vectors]).astype(np.float64)
    square = seen.T @ seen + 100.0 * np.eye(len(seen[0]))
    direction = np.linalg.solve(square, seen.T @ np.array(voices))
    layer = "xvector.dense.nonlinear.batchnorm"
    deviation = np.sqrt(weights[f"{layer}.running_var"] + np.float32(1e-5))
    name = "xvector.dense.linear.weight"
    fitted = np.zeros_like(weights[name])
    fitted[0] = np.tensordot(direction[:-1] / deviation, weights[name], 1)
    mean = np.zeros_like(deviation)
    mean[0] = (direction[:-1] / deviation) @ weights[f"{layer}.running_mean"] - 100 * direction[-1]
    weights |= {
        name: fitted,
        f"{layer}.running_mean": mean,
        f"{layer}.running_var": np.ones_like(deviation),
    }
    return SpeakerNetwork(weights, threads=1)


@pytest.fixture(scope="module")
def loaded(sensevoice_dir: Path, vad_dir: Path, network: SpeakerNetwork) -> Loaded:
    plain = load(SpeechSettings(sensevoice_dir, vad=vad_dir, precision="fp32", threads=2))
    return replace(
        plain,
        recognizer=FinishingRecognizer(plain.recognizer, Finishing(None, network)),
        segmenter=FsmnVad.load(vad_dir, samples=True),
        finishing=Finishing(None, network),
    )


def dialogue(two_voices: list[Clip]) -> np.ndarray:
    """Twice over: more than 15 s of speech, from which on a recording is clustered."""
    parts = [
        part for clip in two_voices * 2 for part in (clip.samples, np.zeros(14_400, np.float32))
    ]
    whole = np.concatenate([np.zeros(8_000, np.float32), *parts])
    return (whole * 32767).astype("<i2")


def offline(loaded: Loaded, sound: np.ndarray) -> list[tuple[str, str]]:
    """Speaker and text of each segment, as a file's are told; cut as live speech is."""
    samples = sound.astype(np.float32) / 32768
    cutter = loaded.segmenter.utterances(Endpointing())
    segments = [e for e in [*cutter.feed(samples), *cutter.finish()] if isinstance(e, Segment)]
    wanted = [RecognitionOptions(words=True, speakers=True)] * len(segments)
    stage = SpeakerStage()
    stage.feed(loaded.recognizer.recognize(segments, wanted))
    return [(str(each.speaker), each.text) for each in stage.finish() if each.text]


async def test_a_dialogue_has_the_speakers_that_its_file_has(
    loaded: Loaded, two_voices: list[Clip]
) -> None:
    samples = dialogue(two_voices)
    expected = offline(loaded, samples)
    assert {speaker for speaker, _ in expected} == {"A", "B"}
    async with running(loaded) as setup:
        told: list[dict[str, Any]] = []
        names = frozenset({"m"})
        connection = Realtime(setup.tools, loaded.recognizer, names, "m", told.append)
        try:
            sound = {"format": {"type": "audio/pcm", "rate": 16000}}
            session = {"type": "transcription", "audio": {"input": sound}}
            await connection.handle({"type": "session.update", "session": session})
            data = samples.tobytes()
            for at in range(0, len(data), 32_000):
                audio = base64.b64encode(data[at : at + 32_000]).decode()
                await connection.handle({"type": "input_audio_buffer.append", "audio": audio})
            await connection.handle({"type": "input_audio_buffer.commit"})
            await asyncio.wait_for(connection._session.drained(), SECONDS)
        finally:
            connection.close()
    segments = [event for event in told if event["type"].endswith("transcription.segment")]
    assert [(event["speaker"], event["text"]) for event in segments] == expected
    assert all(event["start"] < event["end"] for event in segments)


async def test_funasrs_clients_are_told_speakers(loaded: Loaded, two_voices: list[Clip]) -> None:
    samples = dialogue(two_voices)
    expected = offline(loaded, samples)
    async with running(loaded) as setup:
        transcriber = Transcriber(
            loaded.segmenter, setup.tools.batcher, setup.tools.pool, EngineLimits(), setup.tools.metrics,
            loaded.finishing,
        )  # fmt: skip
        for mode in ("2pass", "offline"):
            told: list[dict[str, Any]] = []
            connection = FunasrConnection(
                setup.tools,
                transcriber,
                loaded.recognizer,
                EngineLimits(),
                told.append,
                python=True,
            )
            try:
                await connection.handle({"mode": mode, "audio_fs": 16000, "is_speaking": True})
                data = samples.tobytes()
                for at in range(0, len(data), 32_000):
                    await connection.handle(data[at : at + 32_000])
                await asyncio.wait_for(connection.handle({"is_speaking": False}), SECONDS)
            finally:
                connection.close()
            finals = [m for m in told if m["is_final"] and m["text"]]
            clauses = [clause for m in finals for clause in m["stamp_sents"]]
            assert {clause["spk"] for clause in clauses} == {0, 1}
            assert all(m["spk_name"] in ("A", "B") for m in finals)
            if mode == "2pass":
                assert [m["spk_name"] for m in finals] == [speaker for speaker, _ in expected]
                for m in finals:
                    assert {c["spk"] for c in m["stamp_sents"]} == {number_of(m["spk_name"])}

"""whisper-base itself, on real and on synthetic speech, through the server and OpenAI's client."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("faster_whisper", reason="run with the Python of the environment for whisper")
pytest.importorskip("openai", reason="OpenAI's client")

import numpy as np
from openai import BadRequestError, NotFoundError, OpenAI

from tests.speech.server.conftest import SHARED, Running
from tests.speech.server.media import FORMATS, encode, silence, wav
from tests.speech.server.whisper import whisper_directory
from yibu.errors import EngineStartError, UnsupportedError, UsageError
from yibu.speech.audio.decoding import Decoder
from yibu.speech.models.whisper import WhisperRecognizer
from yibu.speech.settings import EngineLimits
from yibu.speech.types import RecognitionOptions, Samples, Segment
from yibu.speech.vad.silero import SileroVad

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CLIPS = SHARED / "clips"
NAME = "whisper-base"


def clips() -> list[tuple[str, str, str]]:
    """(file, language, transcript)."""
    table = CLIPS / "transcripts.tsv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        return [(row["file"], row["lang"], row["text"]) for row in rows]


def samples_of(data: bytes) -> Samples:
    decoder = Decoder(io.BytesIO(data), EngineLimits())
    blocks = []
    while (block := decoder.read(60.0)) is not None:
        blocks.append(block)
    decoder.close()
    return np.concatenate(blocks)


def segment(name: str) -> Segment:
    if not (CLIPS / name).is_file():
        pytest.skip("the clips are not at ../shared/clips")
    return Segment(0.0, samples_of((CLIPS / name).read_bytes()))


def error_rate(expected: Sequence[str], found: Sequence[str]) -> float:
    """Edit distance over the length of what was expected."""
    previous = list(range(len(found) + 1))
    for row, left in enumerate(expected, 1):
        current = [row]
        for column, right in enumerate(found, 1):
            change = previous[column - 1] + (left != right)
            current.append(min(change, previous[column] + 1, current[-1] + 1))
        previous = current
    return previous[-1] / len(expected)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def characters(text: str) -> list[str]:
    """Chinese characters only, in simplified script."""
    zhconv = pytest.importorskip("zhconv", reason="converts traditional to simplified Chinese")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its dictionary file open
        simplified = zhconv.convert(text, "zh-cn")
    return re.findall(r"[\u4e00-\u9fff]", simplified)


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    return WhisperRecognizer.load(whisper_directory(), precision="int8", device="cpu", threads=2)


@pytest.fixture
def engine(start_engine: Callable[..., Running]) -> Running:
    return start_engine(program="yibu.speech", model=whisper_directory())


@pytest.fixture
def client(engine: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("name", "language", "text"), clips() or [("none", "", "")])
def test_real_speech(client: OpenAI, name: str, language: str, text: str) -> None:
    if not text:
        pytest.skip("the clips are not at ../shared/clips")
    answer = client.audio.transcriptions.create(
        model=NAME, file=(CLIPS / name), response_format="verbose_json"
    )
    assert answer.language == {"en": "english", "zh": "chinese"}[language]
    if language == "zh":
        assert error_rate(characters(text), characters(answer.text)) <= 0.10, answer.text
    else:
        assert error_rate(words(text), words(answer.text)) <= 0.05, answer.text


SPOKEN = (
    "The quick brown fox jumps over the lazy dog.",
    "Please bring me a glass of cold water and close the window.",
    "Every morning she walks to the station and reads the newspaper on the train.",
)


@pytest.fixture(scope="module")
def spoken() -> list[Samples]:
    hibari = pytest.importorskip("hibari", reason="pip install hibari-tts==0.2.1 speaks")
    voice = hibari.Hibari()
    return [
        samples_of(encode(np.asarray(voice(text), np.float32), FORMATS[0], 24_000))
        for text in SPOKEN
    ]


def test_synthetic_speech_as_a_stream_with_gaps(client: OpenAI, spoken: list[Samples]) -> None:
    pieces = [piece for samples in spoken for piece in (samples, silence(4.0))]
    events = list(
        client.audio.transcriptions.create(
            model=NAME, file=("talk.wav", wav(np.concatenate(pieces))), stream=True
        )
    )
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * len(SPOKEN)
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert error_rate(words(" ".join(SPOKEN)), words(events[-1].text)) <= 0.05, events[-1].text


def test_every_answer_of_the_openai_client(client: OpenAI, spoken: list[Samples]) -> None:
    pause = silence(3.0)
    data = wav(np.concatenate([pause, spoken[0], pause, spoken[1], pause]))

    def ask(**more: Any) -> Any:
        return client.audio.transcriptions.create(
            model=NAME, file=("talk.wav", data), language="en", **more
        )

    text = ask().text
    assert ask(response_format="text") == text + "\n"
    srt = ask(response_format="srt")
    assert srt.startswith("1\n00:00:0")
    assert " --> " in ask(response_format="vtt")
    verbose = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert verbose.text == text
    assert verbose.duration == pytest.approx(len(samples_of(data)) / 16_000, abs=0.01)
    first, second = verbose.segments
    begin = 3.0 + len(spoken[0]) / 16_000
    assert first.start == pytest.approx(3.0, abs=0.6)
    assert first.end == pytest.approx(begin, abs=0.8)
    assert second.start == pytest.approx(begin + 3.0, abs=0.6)
    assert [word.word for word in verbose.words] == text.split()
    times = [time for word in verbose.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(2.4 < time < verbose.duration for time in times)
    with pytest.raises(BadRequestError, match="language"):
        ask(extra_body={"language": "klingon"})
    with pytest.raises(NotFoundError):
        client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", data))
    with pytest.raises(BadRequestError, match="not audio"):
        client.audio.transcriptions.create(model=NAME, file=("a.wav", b"nothing" * 100))


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's word for it
def begins(samples: Samples) -> float:
    """When the first hundredth of a second begins that has a twentieth of the loudest one's energy."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    level = np.sqrt((frames**2).mean(axis=1))
    return float(np.flatnonzero(level > 0.05 * level.max())[0]) / 100


@pytest.mark.parametrize("pause", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("name", [name for name, _, _ in clips()])
def test_the_first_word_begins_with_the_sound(
    recognizer: WhisperRecognizer, name: str, pause: float
) -> None:
    """Segments begin with the VAD's padding, in which nobody speaks yet."""
    voice = segment(name).samples
    quiet = np.random.default_rng(0).normal(0, 1e-4, int(pause * 16_000)).astype(np.float32)
    session = SileroVad().session()
    found = session.feed(np.concatenate([quiet, voice])) + session.finish()
    first = recognizer.recognize(found[:1], [RecognitionOptions(words=True)])[0]
    assert first.words[0].start == pytest.approx(pause + begins(voice), abs=0.2)
    assert first.start == pytest.approx(pause + begins(voice), abs=0.2)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the SDK's own method
def test_translation(client: OpenAI) -> None:
    if not CLIPS.is_dir():
        pytest.skip("the clips are not at ../shared/clips")
    answer = client.audio.translations.create(
        model=NAME, file=CLIPS / "funasr_asr_example.wav", response_format="verbose_json"
    )
    assert answer.language == "english"
    assert "welcome" in answer.text.lower()
    assert re.fullmatch(r"[\x20-\x7e]+", answer.text)


def test_the_text_does_not_depend_on_the_batch(
    recognizer: WhisperRecognizer, spoken: list[Samples]
) -> None:
    segments = [Segment(0.0, samples) for samples in spoken]
    segments += [Segment(5.0, samples[: len(samples) // 2]) for samples in spoken]
    segments += [segment("funasr_asr_example.wav")]
    options = [RecognitionOptions(words=index % 2 == 0) for index in range(len(segments))]
    together = recognizer.recognize(segments, options)
    for index, answer in enumerate(together):
        [alone] = recognizer.recognize([segments[index]], [options[index]])
        assert alone == answer
    backwards = recognizer.recognize(segments[::-1], options[::-1])
    assert backwards[::-1] == together


def test_options(recognizer: WhisperRecognizer, spoken: list[Samples]) -> None:
    speech = Segment(10.0, spoken[0])
    [plain] = recognizer.recognize([speech], [RecognitionOptions(language="en")])
    assert (plain.words, plain.temperature, plain.language) == ((), 0.0, "en")
    assert plain.average_logprob is not None
    assert -1.0 < plain.average_logprob < 0.0
    [prompted] = recognizer.recognize(
        [speech], [RecognitionOptions(prompt="A story about animals." * 400)]
    )
    assert error_rate(words(SPOKEN[0]), words(prompted.text)) <= 0.2
    [warm] = recognizer.recognize([speech], [RecognitionOptions(temperature=0.4)])
    assert warm.temperature == 0.4
    assert warm.text
    chinese = recognizer.recognize([speech], [RecognitionOptions(language="zh")])[0]
    assert chinese.language == "zh"


def test_our_prompt_is_never_the_answer(recognizer: WhisperRecognizer) -> None:
    """English heard as Chinese: the model wrote the prompt that leans it to simplified script."""
    if not (CLIPS / "jfk.flac").exists():
        pytest.skip("the clips are not at ../shared/clips")
    speech = samples_of((CLIPS / "jfk.flac").read_bytes())
    for start in (0, 80_000):
        segment = Segment(0.0, speech[start:])
        [answer] = recognizer.recognize([segment], [RecognitionOptions(language="zh")])
        assert "以下是普" not in answer.text


def test_noise_and_the_shortest_segments(recognizer: WhisperRecognizer) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 48_000).astype(np.float32)
    for samples in (noise, silence(1.0), silence(0.01)):
        [answer] = recognizer.recognize([Segment(0.0, samples)], [RecognitionOptions(words=True)])
        assert len(answer.text) < 200


def test_precisions() -> None:
    directory = whisper_directory()
    with pytest.raises(UsageError, match="int4"):
        WhisperRecognizer.load(directory, precision="int4", device="cpu", threads=1)
    with pytest.raises(UnsupportedError, match=r"model\.bin"):
        WhisperRecognizer.load(directory.parent, precision="auto", device="cpu", threads=1)
    exact = WhisperRecognizer.load(directory, precision="fp32", device="cpu", threads=2)
    assert exact.precision == "fp32"
    jfk = segment("jfk.flac")
    assert "country" in exact.recognize([jfk], [RecognitionOptions()])[0].text


def test_a_damaged_model_is_said_in_words(tmp_path: Path) -> None:
    directory = whisper_directory()
    for file in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (tmp_path / file).write_bytes((directory / file).read_bytes())
    (tmp_path / "model.bin").write_bytes((directory / "model.bin").read_bytes()[:1_000_000])
    with pytest.raises(UnsupportedError, match="cannot be loaded"):
        WhisperRecognizer.load(tmp_path, precision="auto", device="cpu", threads=1)


def test_cuda_without_a_device_says_so() -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("there is a CUDA device")
    with pytest.raises(EngineStartError, match=r"CTranslate2 .* cannot use it") as refused:
        WhisperRecognizer.load(whisper_directory(), precision="auto", device="cuda", threads=1)
    assert refused.value.cause == "no_cuda"


def test_what_the_vad_cuts_is_read_like_the_whole(
    recognizer: WhisperRecognizer, spoken: list[Samples]
) -> None:
    session = SileroVad().session()
    samples = np.concatenate([silence(2.0), spoken[2], silence(2.0)])
    cut = [*session.feed(samples), *session.finish()]
    answers = recognizer.recognize(cut, [RecognitionOptions()] * len(cut))
    text = " ".join(answer.text for answer in answers)
    assert error_rate(words(SPOKEN[2]), words(text)) <= 0.1

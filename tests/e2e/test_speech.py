"""SenseVoice through the whole house: the small trained model of the tests, the real FSMN-VAD."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from tests.e2e.home import REPOSITORY, Home, scrape, user_directories
from yibu.cli.api import Api

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, engine_cache: Path) -> Iterator[Home]:
    served = Home(tmp_path_factory.mktemp("home"), engine_cache)
    with tarfile.open(REPOSITORY / "tests/speech/fixture/sensevoice.tar.xz") as archive:
        archive.extractall(served.root, filter="data")
    (served.root / "user").mkdir()
    env = user_directories(served.root / "user")
    served.write([{"name": "sense", "source": "./sensevoice", "env": env}])
    with served:
        served.yibu("up", "-d", timeout=900)
        yield served


@pytest.fixture
def clip(served: Home) -> Path:
    return served.root / "sensevoice" / "clips" / "0-en.wav"


@pytest.fixture
def said(served: Home) -> str:
    clips = json.loads((served.root / "sensevoice" / "clips" / "clips.json").read_text())
    return " ".join(word for word, _, _ in clips[0]["marks"])


def test_the_command_line_transcribes(served: Home, clip: Path, said: str) -> None:
    assert served.yibu("transcribe", str(clip)).stdout.strip().lower().rstrip(".") == said
    served.yibu(
        "transcribe", str(clip), str(clip), "--format", "srt", "-o", str(served.root / "out")
    )
    assert "00:00:0" in (served.root / "out" / "0-en.srt").read_text()


def test_several_files_are_told_apart(served: Home, clip: Path, said: str) -> None:
    other = clip.with_name("1-zh.wav")
    broken = clip.with_name("broken.wav")
    broken.write_text("no audio")
    done = served.yibu("transcribe", str(clip), str(broken), str(other), code=1)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{clip}: {said}")
    assert second == f"{other}: 四。"
    assert done.stderr.startswith(f"{broken}: The file is not audio")
    done = served.yibu("transcribe", str(clip), str(broken), str(other), "--format", "json", code=1)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [str(clip), str(other)]
    assert answers[1]["text"] == "四。"


def test_answers_of_several_files_are_not_mixed(served: Home, clip: Path) -> None:
    target = served.root / "mixed"
    (served.root / "again").mkdir()
    twin = shutil.copy(clip, served.root / "again" / clip.name)
    done = served.yibu("transcribe", str(clip), str(twin), "-o", str(target), code=2)
    assert f"would both be written to {target / '0-en.txt'}" in done.stderr
    assert not target.exists()
    done = served.yibu("transcribe", str(clip), str(twin), "--format", "srt", code=2)
    assert "-o DIRECTORY writes one file each" in done.stderr


def test_the_official_client(served: Home, clip: Path, said: str) -> None:
    with openai.OpenAI(base_url=f"{served.url()}/v1", api_key="none", max_retries=0) as client:
        answer = client.audio.transcriptions.create(
            model="sense",
            file=clip,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        assert answer.text.lower().rstrip(".") == said
        assert answer.words is not None
        assert [word.word.lower().rstrip(".") for word in answer.words] == said.split()
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(model="sense", file=clip, language="klingon")
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(model="sense", file=Path(__file__))
        with pytest.raises(openai.NotFoundError, match=r"engine is speech.*transcriptions"):
            client.chat.completions.create(
                model="sense", messages=[{"role": "user", "content": "hello"}]
            )


def test_it_leaves_nothing_in_its_users_home_and_reports_to_nobody(served: Home) -> None:
    """Both ONNX Runtime and OpenVINO keep an id of the machine there, under which they report."""
    engine = psutil.Process(served.model("sense")["replicas"][0]["pid"])
    assert engine.environ()["HOME"] == str(served.root / "user")
    assert list((served.root / "user").rglob("*")) == []


def ask(served: Home, path: str, file: Path, **fields: str) -> tuple[int, str, bytes]:
    """Status, content type and body of an upload; an error's too."""
    boundary = b"e2e-boundary"
    parts = [
        b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (boundary, name.replace("__", "[]").encode(), value.encode())
        for name, value in fields.items()
    ]
    head = b'--%b\r\ncontent-disposition: form-data; name="file"; filename="clip"\r\n\r\n'
    body = b"".join([*parts, head % boundary, file.read_bytes(), b"\r\n--%b--\r\n" % boundary])
    kind = {"content-type": f"multipart/form-data; boundary={boundary.decode()}"}
    request = urllib.request.Request(served.url() + path, body, kind)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as refused:
        answer = refused
    with answer:
        return answer.status, answer.headers["content-type"], answer.read()


def test_verbose_json_carries_what_sensevoice_heard(served: Home) -> None:
    clips = served.root / "sensevoice" / "clips"
    for number, (language, name) in enumerate([("en", "english"), ("zh", "chinese")]):
        marks = json.loads((clips / "clips.json").read_text())[number]["marks"]
        status, kind, body = ask(
            served,
            "/v1/audio/transcriptions",
            clips / f"{number}-{language}.wav",
            model="sense",
            response_format="verbose_json",
            timestamp_granularities__="word",
        )
        assert (status, kind) == (200, "application/json")
        answer = json.loads(body)
        assert answer["language"] == name
        # Word by word in English, character by character in Chinese: the first and the last
        # of what is said lie where the synthesis put them.
        assert abs(answer["words"][0]["start"] - marks[0][1]) < 0.12
        assert abs(answer["words"][-1]["end"] - marks[-1][2]) < 0.12
        assert "segments" not in answer
        status, _, body = ask(
            served,
            "/v1/audio/transcriptions",
            clips / f"{number}-{language}.wav",
            model="sense",
            response_format="verbose_json",
        )
        answer = json.loads(body)
        assert answer["segments"]
        for part in (answer, *answer["segments"]):
            # The fixture hears emotion by the voice's pitch.
            assert part["emotion"] in {"happy", "sad", "neutral"}
            assert part["events"] == ["speech"]
        assert {segment["language"] for segment in answer["segments"]} == {language}
        assert "<|" not in body.decode()


def test_formats_and_their_types(served: Home, clip: Path, said: str) -> None:
    path = "/v1/audio/transcriptions"
    for name, kind, begins in (
        ("text", "text/plain; charset=utf-8", said[:4]),
        ("srt", "application/x-subrip; charset=utf-8", "1\n00:00:0"),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00:0"),
        ("json", "application/json", '{"text":'),
    ):
        status, got, body = ask(served, path, clip, model="sense", response_format=name)
        assert (status, got) == (200, kind)
        assert body.decode().lower().startswith(begins.lower())


def test_events_of_a_stream(served: Home, clip: Path, said: str) -> None:
    with openai.OpenAI(base_url=f"{served.url()}/v1", api_key="none", max_retries=0) as client:
        events = list(client.audio.transcriptions.create(model="sense", file=clip, stream=True))
    assert [event.type for event in events[-2:]] == [
        "transcript.text.delta",
        "transcript.text.done",
    ]
    deltas = "".join(e.delta for e in events if e.type == "transcript.text.delta")
    last = events[-1]
    assert last.type == "transcript.text.done"
    assert last.text == deltas
    assert last.text.lower().rstrip(".") == said


def test_recognize_answers_as_the_script_does(served: Home, clip: Path, said: str) -> None:
    for fields in ({}, {"model": "sense", "language": "auto"}, {"language": "zn"}):
        status, _, body = ask(served, "/recognize/", clip, **fields)
        answer = json.loads(body)
        assert status == 200
        assert set(answer) == {"result"}
        if "zn" not in fields.values():
            assert said in answer["result"].lower()
    for fields, file, expected, words in (
        ({}, Path(__file__), 400, "audio"),
        ({"language": "klingon"}, clip, 400, "klingon"),
        ({"model": "nobody"}, clip, 404, "sense"),
    ):
        status, kind, body = ask(served, "/recognize/", file, **fields)
        assert (status, kind) == (expected, "application/json")
        answer = json.loads(body)
        assert set(answer) == {"error"}
        assert words in answer["error"]


def test_the_engines_own_metrics_through_the_gateway(served: Home, clip: Path) -> None:
    of = {"model": "sense", "replica": "sense-0"}
    before = scrape(served)
    Api(served.url()).upload("/recognize/", clip, {})
    after = scrape(served)

    def grown(name: str) -> float:
        return after.value(name, **of) - before.value(name, **of)

    with wave.open(str(clip)) as file:
        seconds = file.getnframes() / file.getframerate()
    assert grown("yibu_speech_audio_seconds_in_total") == pytest.approx(seconds, abs=0.1)
    assert 0 < grown("yibu_speech_audio_seconds_out_total") <= seconds
    for histogram in ("batch_size", "real_time_factor", "time_to_first_segment_seconds"):
        assert grown(f"yibu_speech_{histogram}_count") >= 1, histogram
    assert after.value("yibu_speech_queue_seconds", **of) == 0
    assert after.value("yibu_engine_scrape_up", **of) == 1
    assert after.value("yibu_engine_scrape_dropped_lines", **of) == 0
    document = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    ours = re.findall(r"^# TYPE yibu_speech_(\w+)", after.text, re.MULTILINE)
    assert {name for name in ours if f"`{name}`" not in document} == set()


@pytest.mark.parametrize("named", ["./sensevoice", "sense"])
def test_bench_compares_precisions(served: Home, clip: Path, named: str) -> None:
    done = served.yibu("bench", named, str(clip), "--precisions", "fp32,int8", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]


def test_bench_names_the_file_that_it_cannot_read(served: Home, clip: Path) -> None:
    assert "There is no file none.wav" in served.yibu("bench", "sense", "none.wav", code=2).stderr
    broken = clip.with_name("text.wav")
    broken.write_text("no audio")
    done = served.yibu("bench", "sense", str(broken), "--precisions", "fp32", code=1)
    assert f"{broken}: The file is not audio" in done.stderr
    assert "Traceback" not in done.stderr

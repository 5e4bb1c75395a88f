"""Live speech through a running node: the official SDK, FunASR's form, and an engine that is killed."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import subprocess
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.e2e.home import REPOSITORY, Home
from tests.support.polling import eventually

pytestmark = pytest.mark.engine

SECONDS = 120.0
COMPLETED = "conversation.item.input_audio_transcription.completed"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, engine_cache: Path) -> Iterator[Home]:
    served = Home(tmp_path_factory.mktemp("home"), engine_cache)
    with tarfile.open(REPOSITORY / "tests/speech/fixture/sensevoice.tar.xz") as archive:
        archive.extractall(served.root, filter="data")
    served.write(
        [{"name": "sense", "source": "./sensevoice", "aliases": ["whisper-1"]}],
        funasr_port=0,
    )
    with served:
        served.yibu("up", "-d", timeout=900)
        yield served


@pytest.fixture
def clip(served: Home) -> Path:
    return served.root / "sensevoice" / "clips" / "0-en.wav"


@pytest.fixture
def said(served: Home, clip: Path) -> str:
    return served.yibu("transcribe", str(clip)).stdout.strip()


def samples(clip: Path) -> bytes:
    with wave.open(str(clip)) as file:
        return file.readframes(1 << 26)


async def test_the_official_client(served: Home, clip: Path, said: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url()}/v1", api_key="none") as client:
        for model in ("sense", "whisper-1"):  # an alias is a name that a session may use
            async with client.realtime.connect(
                model=model, extra_query={"intent": "transcription"}
            ) as connection:
                text, shown = await transcribe(connection, model, samples(clip))
            assert text == said
            assert said.startswith(shown)

        def heard() -> float:
            used = json.loads(served.yibu("usage", "--by", "model", "--json").stdout)
            return sum(row["audio_seconds"] for row in used["usage"])

        await eventually(lambda: heard() > 8, "both sessions' audio is counted")


async def transcribe(connection: Any, model: str, data: bytes) -> tuple[str, str]:
    """The final text, and what was shown before it."""
    await connection.session.update(
        session={
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 16000},
                    "transcription": {"model": model},
                }
            },
        }
    )
    for at in range(0, len(data), 3200):
        audio = base64.b64encode(data[at : at + 3200]).decode()
        await connection.input_audio_buffer.append(audio=audio)
    await connection.input_audio_buffer.commit()
    shown = ""
    async with asyncio.timeout(SECONDS):
        async for event in connection:
            assert event.type != "error", event
            if event.type.endswith(".delta"):
                shown += event.delta
            if event.type == COMPLETED:
                return event.transcript, shown
    raise AssertionError("the connection ended")


async def test_funasrs_clients_find_their_port(served: Home, clip: Path, said: str) -> None:
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    main = int(served.url().rpartition(":")[2])
    node = next(c.pid for c in listening if c.laddr.port == main)
    [port] = [c.laddr.port for c in listening if c.pid == node and c.laddr.port != main]
    async with connect(f"ws://127.0.0.1:{port}", subprotocols=["binary"]) as socket:  # type: ignore[list-item]
        first = {"mode": "2pass", "chunk_size": [5, 10, 5], "wav_name": "demo", "is_speaking": True}
        await socket.send(json.dumps(first))
        await socket.send(samples(clip))
        await socket.send(json.dumps({"is_speaking": False, "is_end": True}))
        finals = []
        while True:
            message = json.loads(await asyncio.wait_for(socket.recv(), SECONDS))
            if message.get("is_end"):
                break
            if message["mode"] == "2pass-offline":
                finals.append(message["text"])
    assert finals == [said]


async def test_an_engine_that_is_killed_ends_its_sessions(
    served: Home, clip: Path, said: str
) -> None:
    url = served.url().replace("http", "ws", 1) + "/v1/realtime?intent=transcription&model=sense"
    sockets = [await connect(url) for _ in range(5)]
    for socket in sockets:
        assert (
            json.loads(await asyncio.wait_for(socket.recv(), SECONDS))["type"] == "session.created"
        )
    pid = served.model("sense")["replicas"][0]["pid"]
    psutil.Process(pid).send_signal(signal.SIGKILL)
    for socket in sockets:
        error = json.loads(await asyncio.wait_for(socket.recv(), SECONDS))
        assert error["error"]["code"] == "engine_gone"
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), SECONDS)
        assert socket.close_code == 1011

    async def anew() -> bool:
        model = served.model("sense")
        return model["state"] == "ready" and model["replicas"][0]["pid"] != pid

    await eventually(anew, "the engine is started again", 180)
    async with (
        openai.AsyncOpenAI(base_url=f"{served.url()}/v1", api_key="none") as client,
        client.realtime.connect(model="sense") as connection,
    ):
        text, _ = await transcribe(connection, "sense", samples(clip))
    assert text == said


@pytest.mark.parametrize("output_format", ["text", "srt", "json"])
def test_the_command_line_hears_a_pipe(
    served: Home, clip: Path, said: str, tmp_path: Path, output_format: str
) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(samples(clip))
    for file in (clip, raw):
        with file.open("rb") as sound:
            done = served.yibu(
                "transcribe", "--live", "-", "--format", output_format, stdin=sound, timeout=SECONDS
            )
        if output_format == "text":
            assert done.stdout.strip() == said
        elif output_format == "srt":
            number, times, text = done.stdout.strip().splitlines()
            assert (number, text) == ("1", said)
            assert re.fullmatch(r"00:00:00,\d{3} --> 00:00:0\d,\d{3}", times)
        else:
            line = json.loads(done.stdout)
            assert line["text"] == said
            assert 0 <= line["start"] < line["end"] < 8


def test_the_command_line_hears_a_microphone(
    served: Home, clip: Path, said: str, tmp_path: Path
) -> None:
    """ALSA's plugin that reads a file is a device like any other to PortAudio."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        pytest.skip(f"sounddevice with PortAudio is needed: {error}")
    if not any(api["name"] == "ALSA" for api in sounddevice.query_hostapis()):
        pytest.skip("PortAudio was built without ALSA")
    usual = Path("/usr/share/alsa/alsa.conf")
    if not usual.exists():
        pytest.skip(f"ALSA's configuration is needed: {usual} (Debian: libasound2-data)")
    sound, configuration = tmp_path / "sound", tmp_path / "asound.conf"
    sound.write_bytes(samples(clip) + bytes(32_000))  # and silence after that
    configuration.write_text(
        f'pcm.spoken {{ type file slave.pcm "null" file "/dev/null" infile "{sound}" format "raw" }}\n'
    )
    alsa = {**served.env, "ALSA_CONFIG_PATH": f"{usual}:{configuration}"}
    command = served.command("transcribe", "--live", "--device", "spoken")
    with subprocess.Popen(
        command,
        env=alsa,
        cwd=served.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as listening:
        try:
            assert listening.stdout is not None
            assert listening.stdout.readline().strip() == said
            listening.send_signal(signal.SIGINT)
            _, told = listening.communicate(timeout=SECONDS)
        finally:
            listening.kill()
    assert listening.returncode == 0, told
    assert "Ctrl-C ends it" in told


def test_the_command_line_says_what_is_wrong(served: Home, clip: Path) -> None:
    done = served.yibu("transcribe", "--live", str(clip), code=2)
    assert "- for stdin" in done.stderr
    done = served.yibu("transcribe", code=2)
    assert "nothing to transcribe" in done.stderr
    done = served.yibu("transcribe", "--live", "--device", "no such device", code=2)
    assert "pip install sounddevice" in done.stderr or "cannot be opened" in done.stderr
    done = served.yibu(
        "transcribe", "--live", "-", "--model", "none", code=1, stdin=subprocess.DEVNULL
    )
    assert "There is no model 'none'" in done.stderr

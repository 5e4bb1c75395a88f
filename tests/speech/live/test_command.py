"""What ``yibu transcribe --live`` does with a microphone that fails, against a real engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

pytest.importorskip("av", reason="run with a speech environment's Python")

from tests.speech.live.conftest import SECONDS, Clip, pcm
from tests.speech.live.test_realtime import as_file
from tests.speech.server.conftest import Running
from yibu.cli import live
from yibu.cli.connect import Access
from yibu.errors import YibuError


def breaking_off(data: bytes) -> Callable[[], bytes]:
    """A device that gives these samples and is then unplugged, as PortAudio says."""
    pieces: Iterator[bytes] = (data[at : at + 3200] for at in range(0, len(data), 3200))

    def read() -> bytes:
        try:
            return next(pieces)
        except StopIteration:
            message = "Unanticipated host error [PaErrorCode -9999]"
            raise OSError(message) from None

    return read


@pytest.mark.parametrize("whole", [True, False], ids=["in a pause", "in a word"])
async def test_what_was_said_before_the_microphone_was_unplugged_is_shown(
    engine: Running, clips: list[Clip], capsys: pytest.CaptureFixture[str], whole: bool
) -> None:
    data = pcm(clips[0], 2.0 if whole else 0.0)
    expected = await as_file(engine, pcm(clips[0], 0))
    screen = live._Screen("text")
    run = live._run(
        Access(engine.url, None, {}), "sensevoice", breaking_off(data), None, 16_000, screen
    )
    with pytest.raises(YibuError, match=r"cannot be read: Unanticipated host error"):
        await asyncio.wait_for(run, SECONDS)
    assert capsys.readouterr().out == expected + "\n"


async def test_a_microphone_that_is_not_there_ends_at_once(
    engine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    run = live._run(
        Access(engine.url, None, {}), "sensevoice", breaking_off(b""), None, 16_000,
        live._Screen("text"),
    )  # fmt: skip
    with pytest.raises(YibuError, match="cannot be read"):
        await asyncio.wait_for(run, SECONDS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("has", [{16_000, 48_000}, {48_000, 96_000}, {44_100, 192_000}, {8_000}])
def test_a_microphone_of_another_rate_is_asked_for_one_that_sessions_take(
    has: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own may be 96 kHz, which no session takes."""
    used: list[int] = []

    class PortAudioError(Exception):
        """Of a setting that the device does not have."""

    def check(*, samplerate: int, **_: object) -> None:
        if samplerate not in has:
            raise PortAudioError

    def stream(*, samplerate: int, **_: object) -> SimpleNamespace:
        used.append(samplerate)
        return SimpleNamespace(start=lambda: None, close=lambda: None)

    portaudio = SimpleNamespace(
        PortAudioError=PortAudioError, check_input_settings=check, RawInputStream=stream
    )
    monkeypatch.setitem(sys.modules, "sounddevice", portaudio)
    with live._microphone(None) as (_, rate):
        assert used == [rate]
    assert rate == min(has & set(range(8_000, 48_001)), key=lambda one: (one != 16_000, -one))

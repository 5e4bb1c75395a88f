"""Two hours of audio pass through in bounded memory."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("av", reason="run with a speech environment's Python")
pytest.importorskip("aiohttp", reason="the tests' client")

import aiohttp
import av
import numpy as np

from tests.speech.server.conftest import Running
from tests.speech.server.media import silence, tone

TWO_HOURS = 7200.0
BOUND = 300 * 1024 * 1024


def long_file(path: Path, seconds: float) -> None:
    """Bursts of tones in silence, as mono AAC, written minute by minute."""
    minute = np.concatenate([tone(440, 25.0), silence(5.0), tone(880, 20.0), silence(10.0)])
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=16_000)
        stream.layout = "mono"
        for _ in range(round(seconds / 60)):
            for start in range(0, len(minute), 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(minute[None, start : start + 1024]), "fltp", "mono"
                )
                frame.sample_rate = 16_000
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("program", "cost"), [("quick model", "0"), ("a model slower than the decoder", "0.003")]
)
async def test_two_hours_stay_within_300_mb_above_idle(
    start_engine: Callable[..., Running], tmp_path: Path, program: str, cost: str
) -> None:
    file = tmp_path / "long.m4a"
    long_file(file, TWO_HOURS)
    engine = start_engine(environment={"TONE_COST": cost})
    idle = engine.resident_bytes()
    peak = idle

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, await asyncio.to_thread(engine.resident_bytes))
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    async with aiohttp.ClientSession() as session:
        form = aiohttp.FormData({"model": "tone-model"})
        form.add_field("file", io.BytesIO(file.read_bytes()), filename="long.m4a")
        url = engine.url + "/v1/audio/transcriptions"
        async with session.post(url, data=form, timeout=aiohttp.ClientTimeout(280)) as answer:
            assert answer.status == 200, program
            result = await answer.json()
    watching.cancel()
    assert result["usage"]["seconds"] == pytest.approx(TWO_HOURS, rel=0.001)
    assert result["text"].count("Hz") >= 120 * 4
    assert peak - idle < BOUND

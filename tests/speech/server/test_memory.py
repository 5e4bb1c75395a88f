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
    """Bursts of tones in silence, as mono FLAC, written minute by minute."""
    minute = np.concatenate([tone(440, 25.0), silence(5.0), tone(880, 20.0), silence(10.0)])
    samples = (minute * 32767).astype(np.int16)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16_000)
        stream.layout = "mono"
        stream.codec_context.format = "s16"
        for _ in range(round(seconds / 60)):
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.timeout(300)
async def test_two_hours_stay_within_300_mb_above_idle(
    start_engine: Callable[..., Running], tmp_path: Path
) -> None:
    """The model is slower than the decoder, which has to wait for it."""
    file = tmp_path / "long.flac"
    long_file(file, TWO_HOURS)
    engine = start_engine(environment={"TONE_COST": "0.004"})
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
        form.add_field("file", io.BytesIO(file.read_bytes()), filename="long.flac")
        url = engine.url + "/v1/audio/transcriptions"
        async with session.post(url, data=form, timeout=aiohttp.ClientTimeout(280)) as answer:
            assert answer.status == 200
            result = await answer.json()
    watching.cancel()
    assert result["usage"]["seconds"] == pytest.approx(TWO_HOURS, rel=0.001)
    assert result["text"].count("Hz") >= 120 * 4
    assert peak - idle < BOUND

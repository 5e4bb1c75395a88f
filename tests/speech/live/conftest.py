"""A real engine with the tiny SenseVoice and the real FSMN-VAD, and clients of both protocols."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.speech.models.conftest import Clip, clips, funasr_dir, sensevoice_dir, vad_dir
from tests.speech.server.conftest import Running, start_engine

__all__ = ["Clip", "clips", "funasr_dir", "sensevoice_dir", "start_engine", "vad_dir"]

REALTIME = "/v1/realtime?intent=transcription"
KEY = "a-key-of-the-engine"
SECONDS = 120.0
"""In which a message that must come has come, on a machine that is busy."""
TRANSCRIPTION = "conversation.item.input_audio_transcription."


@pytest.fixture
def engine(
    start_engine: Callable[..., Running], sensevoice_dir: Path, vad_dir: Path
) -> Iterator[Running]:
    return start_engine(
        "--vad", str(vad_dir), "--threads", "1", program="yibu.speech", model=sensevoice_dir,
        environment={"PYTHONPATH": os.pathsep.join(["src", os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip


def pcm(clip: Clip, silence: float = 1.0) -> bytes:
    """16-bit samples at 16 kHz, with silence behind."""

    return bytes((clip.samples * 32767).astype("<i2").tobytes()) + bytes(int(silence * 16000) * 2)


class RealtimeClient:
    """What it was told, and waiting for it."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The next events up to the ``count``-th of a kind, which is returned."""
        while True:
            event = json.loads(await asyncio.wait_for(self.socket.recv(), SECONDS))
            self.events.append(event)
            if event["type"] == kind:
                count -= 1
                if not count:
                    return event

    async def begin(self, rate: int = 16000, **sound: Any) -> None:
        await self.until("session.created")
        await self.update(format={"type": "audio/pcm", "rate": rate}, **sound)

    async def update(self, **sound: Any) -> dict[str, Any]:
        session = {"type": "transcription", "audio": {"input": sound}}
        await self.send("session.update", session=session)
        return await self.until("session.updated")

    async def append(self, data: bytes, piece: int = 3200) -> None:
        for at in range(0, len(data), piece):
            audio = base64.b64encode(data[at : at + piece]).decode()
            await self.send("input_audio_buffer.append", audio=audio)

    def texts(self, kind: str, field: str) -> list[str]:
        return [e[field] for e in self.events if e["type"] == TRANSCRIPTION + kind]


def address(engine: Running, path: str = REALTIME) -> str:
    return engine.url.replace("http", "ws", 1) + path

"""The engine's settings: one frozen tree, built by ``program``, passed by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MIB = 1024 * 1024
KEY_VARIABLE = "YIBU_SPEECH_KEY"
"""The environment variable with the key that clients must send."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds on what one client, and all together, can ask for."""

    upload_bytes: int = 1024 * MIB
    """Bytes of one request's body."""
    upload_idle_seconds: float = 60.0
    """Seconds without a byte after which an upload is given up."""
    audio_seconds: float = 4 * 3600.0
    """Seconds of one decoded file."""
    decode_seconds: float = 300.0
    """CPU seconds of the decoder for one file."""
    requests: int = 64
    """Requests in flight, including those that still upload."""
    queue_seconds: float = 1800.0
    """Seconds of audio queued for the model by all requests; above it, 429."""
    window_seconds: float = 60.0
    """Seconds of audio that one request may have decoded ahead of the model. It bounds a long file's
    memory and its part of the queue."""
    batch_seconds: float = 240.0
    """Seconds of audio in one batch, padding included."""
    batch_time: float = 1.0
    """Target computing time of a batch, in seconds: a new request waits about that long."""
    live_batch_time: float = 0.1
    """The same with live sessions: their finished sentences wait about that long."""
    sessions: int = 256
    """Concurrent live sessions; above it, 429."""
    idle_seconds: float = 300.0
    """Seconds without a message after which a live session is closed."""
    stall_seconds: float = 600.0
    """Seconds of computing on one batch after which /health reports that the model hangs."""


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """The command line of ``python -m yibu.speech``, resolved."""

    model: Path
    served_name: str = ""
    vad: Path | None = None
    punctuation: Path | None = None
    speakers: Path | None = None
    online: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    precision: str = "auto"
    device: str = "cpu"
    threads: int = 1
    path: Literal["fast", "reference"] = "fast"
    limits: EngineLimits = field(default_factory=EngineLimits)
    key: str | None = field(default=None, repr=False)
    """Clients must send it as ``Authorization: Bearer``; None: no key is needed."""

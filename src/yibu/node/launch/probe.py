"""Questions to an engine over HTTP: is it ready, and does it really produce a token?"""

from __future__ import annotations

import io
import json
import wave
from dataclasses import dataclass, field

from yibu.engines.base import Capability, Endpoint
from yibu.upstream.ask import Answer, ask
from yibu.upstream.connection import UpstreamError

_BODY_LIMIT = 1 << 20


class ProbeError(Exception):
    """The engine could not be asked: refused, reset, timed out, or no HTTP."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The smallest request that makes an engine run its model once."""

    path: str
    body: bytes = field(repr=False)
    content_type: str = "application/json"


async def get(endpoint: Endpoint, path: str, timeout: float) -> Answer:
    """GET ``path``.

    Raises:
        ProbeError: no complete answer within ``timeout`` seconds.
    """
    return await _ask(endpoint, "GET", path, timeout)


async def one_token(endpoint: Endpoint, request: TokenRequest, timeout: float) -> Answer:
    """Send a request made by :func:`token_requests`; raises ProbeError as :func:`get` does."""
    return await _ask(endpoint, "POST", request.path, timeout, request)


async def _ask(
    endpoint: Endpoint, method: str, path: str, timeout: float, request: TokenRequest | None = None
) -> Answer:
    kind = [(b"content-type", request.content_type.encode())] if request is not None else []
    body = request.body if request is not None else b""
    try:
        return await ask(
            endpoint, method, path, seconds=timeout, limit=_BODY_LIMIT, headers=kind, body=body
        )
    except UpstreamError as error:
        raise ProbeError(f"{method} {path}: {error}") from error


def token_requests(capabilities: frozenset[Capability], model: str) -> list[TokenRequest]:
    """Requests to try in turn: an engine may lack what its plan promised (a chat template)."""
    bodies: dict[Capability, tuple[str, dict[str, object]]] = {
        "chat": (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
        ),
        "completions": ("/v1/completions", {"prompt": "hi", "max_tokens": 1}),
        "embeddings": ("/v1/embeddings", {"input": "hi"}),
        "rerank": ("/v1/rerank", {"query": "hi", "documents": ["hi"]}),
        "score": ("/v1/score", {"text_1": "hi", "text_2": "hi"}),
    }
    requests = [
        TokenRequest(path, json.dumps({"model": model, **body}).encode())
        for capability, (path, body) in bodies.items()
        if capability in capabilities
    ]
    if "transcriptions" in capabilities:
        requests.append(_transcription(model))
    return requests


def _transcription(model: str) -> TokenRequest:
    boundary = "yibu-probe-7d1f"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'.encode(),
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="probe.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n".encode(),
        silent_wav(seconds=0.5),
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    return TokenRequest(
        "/v1/audio/transcriptions", b"".join(parts), f"multipart/form-data; boundary={boundary}"
    )


def silent_wav(seconds: float) -> bytes:
    """A WAV file of zeros, 16 kHz mono, 16 bit."""
    rate = 16_000
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * int(rate * seconds)))
    return buffer.getvalue()

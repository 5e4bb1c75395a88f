"""Questions to an engine over HTTP: is it ready, and does it really produce a token?

A hundred lines of HTTP/1.1 on asyncio streams, so that the node needs no HTTP client, and a
connection a request, so that nothing is shared with an engine that is about to be killed.
"""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field

from yibu.engines.base import Capability, Endpoint

_BODY_LIMIT = 1 << 20


class ProbeError(Exception):
    """The engine could not be asked: refused, reset, timed out, or no HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def excerpt(self) -> str:
        return self.body[:300].decode(errors="replace").strip()


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
    return await _ask(endpoint, "GET", path, b"", {}, timeout)


async def one_token(endpoint: Endpoint, request: TokenRequest, timeout: float) -> Answer:
    """Send a request made by :func:`token_requests`; raises ProbeError as :func:`get` does."""
    headers = {"Content-Type": request.content_type}
    return await _ask(endpoint, "POST", request.path, request.body, headers, timeout)


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
        _silence(seconds=0.5),
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    return TokenRequest(
        "/v1/audio/transcriptions", b"".join(parts), f"multipart/form-data; boundary={boundary}"
    )


def _silence(seconds: float) -> bytes:
    """A WAV file of zeros, 16 kHz mono, 16 bit."""
    rate = 16_000
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * int(rate * seconds)))
    return buffer.getvalue()


async def _ask(
    endpoint: Endpoint,
    method: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout: float,
) -> Answer:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {endpoint.host}:{endpoint.port}",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if endpoint.key is not None:
        lines.append(f"Authorization: Bearer {endpoint.key}")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(endpoint, head + body)
    except TimeoutError:
        raise ProbeError(f"{method} {path}: no answer within {timeout:g} s") from None
    except (OSError, EOFError, ValueError) as error:
        raise ProbeError(f"{method} {path}: {error or type(error).__name__}") from error


async def _exchange(endpoint: Endpoint, message: bytes) -> Answer:
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        writer.write(message)
        await writer.drain()
        status_line = await reader.readuntil(b"\r\n")
        version, status, *_ = status_line.split()
        if not version.startswith(b"HTTP/1."):
            raise ValueError(f"not HTTP: {status_line[:60]!r}")
        headers = {}
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip().lower()
        return Answer(int(status), await _body(reader, headers))
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, headers: Mapping[bytes, bytes]) -> bytes:
    """The body by RFC 9112, section 6.3: chunked, else by length, else to the end."""
    if headers.get(b"transfer-encoding", b"").endswith(b"chunked"):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if len(body) + size > _BODY_LIMIT:
                raise ValueError("the answer to a probe is over 1 MiB")
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        return body
    length = headers.get(b"content-length")
    if length is not None:
        return await reader.readexactly(min(int(length), _BODY_LIMIT))
    return await reader.read(_BODY_LIMIT)

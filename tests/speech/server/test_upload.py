"""The form parser: whatever the chunks, whatever the bytes, and whoever leaves halfway."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from typing import Any

import pytest

pytest.importorskip("python_multipart", reason="run with a speech environment's Python")

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from yibu.errors import InvalidRequestError, NotReadyError, RequestError, TooLargeError
from yibu.speech.http.upload import Form, UploadStalledError, read_form
from yibu.speech.settings import EngineLimits

LIMITS = EngineLimits(upload_bytes=4 * 1024 * 1024, upload_idle_seconds=5.0)
BOUNDARY = "x-bound"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, value: bytes, filename: str | None = None, kind: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    head += f'; filename="{filename}"' if filename is not None else ""
    head += f"\r\nContent-Type: {kind}" if kind else ""
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def request(
    chunks: Iterable[bytes], kind: str = TYPE, *, ends: str = "done", length: int | None = None
) -> Request:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    if ends == "done":
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    if ends == "disconnect":
        messages.append({"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    headers = [(b"content-type", kind.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    return Request(scope, receive)


async def read(chunks: Iterable[bytes], limits: EngineLimits = LIMITS, **more: Any) -> Form:
    return await read_form(request(chunks, **more), limits)


async def refused(
    chunks: Iterable[bytes], limits: EngineLimits = LIMITS, **more: Any
) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await read(chunks, limits, **more)
    return caught.value


async def test_fields_and_file() -> None:
    data = (
        part("model", "易".encode())
        + part("timestamp_granularities[]", b"word")
        + part("timestamp_granularities[]", b"segment")
        + part("file", b"\r\n--x-bou\r\n", "a \xe9.wav", "audio/wav")
        + part("language", b"")
        + END
    )
    with await read([data]) as form:
        assert form.first("model") == "易"
        assert form.first("language") is None
        assert form.all("timestamp_granularities") == ["word", "segment"]
        assert form.upload is not None
        form.upload.file.seek(0)
        assert form.upload.file.read() == b"\r\n--x-bou\r\n"
        assert (form.upload.size, form.upload.content_type) == (11, "audio/wav")
    assert form.upload.file.closed


async def test_a_field_is_given_once_or_alike() -> None:
    data = part("language", b"") + part("language", b"en") * 2 + END
    with await read([data]) as form:
        assert form.first("language") == "en"
    with await read([part("language", b"en") + part("language", b"de") + END]) as form:
        with pytest.raises(InvalidRequestError) as caught:
            form.first("language")
        assert caught.value.param == "language"


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO-8859-1", "Café"),
        ('"gb18030"', "你好"),
        ("utf-16le", "Café"),
        ("Shift_JIS", "こんにちは"),
        ("utf-8", "Café 你好"),
    ],
)
async def test_a_field_in_another_charset(charset: str, text: str) -> None:
    value = text.encode(charset.strip('"'))
    with await read([part("prompt", value, kind=f"text/plain; charset={charset}") + END]) as form:
        assert form.first("prompt") == text


@pytest.mark.parametrize("charset", ["us-ascii", "utf-99", "hex", "nonsense", "idna"])
async def test_a_field_that_is_not_in_its_charset(charset: str) -> None:
    error = await refused([part("prompt", b"Caf\xe9", kind=f"text/plain; charset={charset}") + END])
    assert (error.param, error.status) == ("prompt", 400)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.integers(1, 400), min_size=1, max_size=40))
async def test_the_chunks_do_not_matter(content: bytes, sizes: list[int]) -> None:
    data = part("model", b"m") + part("file", content, "f") + END
    chunks, at, turn = [], 0, 0
    while at < len(data):
        chunks.append(data[at : at + sizes[turn % len(sizes)]])
        at += len(chunks[-1])
        turn += 1
    if b"--" + BOUNDARY.encode() in content:
        return
    with await read(chunks) as form:
        assert form.upload is not None
        form.upload.file.seek(0)
        assert form.upload.file.read() == content
        assert form.first("model") == "m"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600))
async def test_any_body_is_a_form_or_refused(data: bytes) -> None:
    await form_or_refusal([data])


@settings(max_examples=200, deadline=None)
@given(st.data())
async def test_a_damaged_form_is_a_form_or_refused(data: st.DataObject) -> None:
    whole = part("model", b"m") + part("file", b"abc" * 50, "f") + part("stream", b"true") + END
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)):
        if position < len(damaged):
            damaged[position] = data.draw(st.integers(0, 255))
    await form_or_refusal([bytes(damaged)])


async def form_or_refusal(chunks: list[bytes]) -> None:
    try:
        form = await read(chunks)
    except InvalidRequestError:
        return
    with form:
        assert isinstance(form.fields, dict)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("application/json", "multipart/form-data"),
        ("", "content type"),
        ("multipart/form-data", "boundary"),
        ("multipart/form-data; boundary=" + "b" * 500, "cannot be read"),
    ],
)
async def test_not_a_form(kind: str, said: str) -> None:
    assert said in (await refused([b"{}"], kind=kind)).message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut short"),
        (part("model", b"m"), "cut short"),
        (part("file", b"x", "a") + part("file", b"y", "b") + END, "one file"),
        (part("sound", b"x", "a.wav") + END, "belongs in 'file'"),
        (part("model", b"\xff\xfe") + END, "not UTF-8"),
        (part("model", b"m" * 70_000) + END, "longer than"),
        (b"".join(part(f"f{n}", b"") for n in range(257)) + END, "more than 256"),
        (b"no boundary at all", "cannot be read"),
    ],
)
async def test_bad_forms(data: bytes, said: str) -> None:
    error = await refused([data])
    assert error.status == 400
    assert said in error.message


async def test_too_large_is_refused_by_its_header_or_by_its_bytes() -> None:
    limits = EngineLimits(upload_bytes=1000)
    assert isinstance(await refused([], limits, length=1001), TooLargeError)
    chunks = [part("file", b"x" * 600, "a"), b"x" * 600]
    assert isinstance(await refused(chunks, limits), TooLargeError)


async def test_a_stalled_upload_is_given_up() -> None:
    limits = EngineLimits(upload_idle_seconds=0.05)
    error = await refused([part("file", b"x", "a")], limits, ends="never")
    assert isinstance(error, UploadStalledError)
    assert error.status == 408


async def test_a_client_that_leaves() -> None:
    with pytest.raises(ClientDisconnect):
        await read([part("file", b"x" * 1000, "a")[:500]], ends="disconnect")


async def test_a_full_disk_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(
        "yibu.speech.http.upload.tempfile.SpooledTemporaryFile", lambda **_: FullDisk()
    )
    error = await refused([part("file", b"x" * 1000, "a") + END])
    assert isinstance(error, NotReadyError)
    assert "disk" in error.message

"""Audio uploads: streamed through, found their model, bounded, never mixed up."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small_disks import with_disks
from yibu.errors import InvalidRequestError
from yibu.gateway.requests.form import FormScanner

from .conftest import SPEECH, FakeBackend, Running, Serve
from .oracle import Oracle
from .upstream import Received, Upstream, answering, response, sending

TRANSCRIBE = "/v1/audio/transcriptions"


def form(*, model: str | None = "ears", size: int = 100, model_first: bool = True) -> bytes:
    file = (
        b'--BB\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n'
        b"Content-Type: audio/wav\r\n\r\n" + b"\r\n--B\x00" * (size // 6) + b"\r\n"
    )
    name = b""
    if model is not None:
        name = b'--BB\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        name += model.encode() + b"\r\n"
    return (name + file if model_first else file + name) + b"--BB--\r\n"


async def post(gateway: Running, path: str, data: Any) -> tuple[int, Any]:
    headers = {"content-type": "multipart/form-data; boundary=BB"}
    async with gateway.http.post(gateway.url + path, data=data, headers=headers) as answer:
        return answer.status, await answer.json()


async def pieces(data: bytes, size: int = 50_000):
    for at in range(0, len(data), size):
        yield data[at : at + size]


@given(data=st.data(), model_first=st.booleans(), name=st.text(st.characters(codec="utf-8")))
def test_the_model_is_found_in_pieces_of_any_size(data, model_first: bool, name: str) -> None:
    name = name.replace("\r", "").replace("\n", "")[:200]
    raw = form(model=name, model_first=model_first)
    scanner = FormScanner(b"BB")
    rest = raw
    while rest and scanner.model is None and not scanner.ended:
        size = data.draw(st.integers(1, len(rest)))
        scanner.feed(rest[:size])
        rest = rest[size:]
    assert (scanner.model or "") == name.strip()
    start, end = scanner.span
    assert raw[start:end] == name.encode()


@given(raw=st.binary(max_size=300), cut=st.integers(1, 50))
def test_the_scanner_survives_anything(raw: bytes, cut: int) -> None:
    scanner = FormScanner(b"BB")
    try:
        for at in range(0, len(raw), cut):
            scanner.feed(b"--BB\r\n" + raw[at : at + cut])
    except InvalidRequestError:
        pass
    assert scanner.model is None or isinstance(scanner.model, str)


@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("size", [100, 6_000_000])
async def test_forwarded_byte_for_byte(
    serve: Serve, backend: FakeBackend, model_first: bool, chunks: bool, size: int
) -> None:
    raw = form(size=size, model_first=model_first)
    async with Upstream(answering({"text": "hello"})) as up:
        backend.add("ears", up, capabilities=SPEECH)
        async with serve() as gateway:
            status, answer = await post(gateway, TRANSCRIBE, pieces(raw) if chunks else raw_io(raw))
    assert (status, answer) == (200, {"text": "hello"})
    assert up.received[0].body == raw
    assert up.received[0].path == TRANSCRIBE


def raw_io(raw: bytes) -> Any:
    import io

    return io.BytesIO(raw)


@pytest.mark.parametrize("model_first", [True, False])
async def test_the_engines_own_name(serve: Serve, backend: FakeBackend, model_first: bool) -> None:
    async with Upstream(answering({"text": "hello"})) as up:
        backend.add("ears", up, capabilities=SPEECH, served_name="whisper-large")
        async with serve() as gateway:
            data = raw_io(form(model_first=model_first))
            status, _ = await post(gateway, TRANSCRIBE, data)
            assert status == 200
            data = raw_io(form(model_first=model_first, size=6_000_000))
            status, _ = await post(gateway, TRANSCRIBE, data)
            assert status == 200
    assert up.received[0].body == form(model="whisper-large", model_first=model_first)
    large = form(model="whisper-large", model_first=model_first, size=6_000_000)
    assert up.received[1].body == large


async def test_an_alias_is_sent_by_the_engines_name(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering({"text": "hello"})) as up:
        backend.add("ears", up, capabilities=SPEECH, names={"whisper-1": "ears"})
        async with serve() as gateway:
            status, _ = await post(gateway, TRANSCRIBE, raw_io(form(model="whisper-1")))
    assert status == 200
    assert up.received[0].body == form(model="ears")


async def test_recognize_needs_no_model(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering({"result": "ni hao"})) as up:
        backend.add("text")
        async with serve() as gateway:
            status, answer = await post(gateway, "/recognize/", raw_io(form(model=None)))
            assert (status, answer) == (404, {"error": "No model here does speech recognition"})
            backend.add("ears", up, capabilities=SPEECH)
            for path in ("/recognize/", "/recognize"):
                status, answer = await post(gateway, path, raw_io(form(model=None)))
                assert (status, answer) == (200, {"result": "ni hao"})
    assert {received.path for received in up.received} == {"/recognize/"}


async def test_refusals_of_recognize_are_the_scripts(serve: Serve, backend: FakeBackend) -> None:
    refusal = {"error": "not audio"}  # as the engine says it there
    async with Upstream(answering(refusal, status="400 Bad Request")) as up:
        backend.add("ears", up, capabilities=SPEECH)
        backend.add("text")
        async with serve(keys=["a-long-enough-key"]) as gateway:
            url, headers = (
                gateway.url + "/recognize/",
                {"authorization": "Bearer a-long-enough-key"},
            )
            async with gateway.http.post(url) as answer:
                assert answer.status == 401
                assert set(await answer.json()) == {"error"}
                assert "API key" in (await answer.json())["error"]
            async with gateway.http.get(url, headers=headers) as answer:
                assert answer.status == 405
                assert isinstance((await answer.json())["error"], str)
            kind = {"content-type": "multipart/form-data; boundary=XyZ"}
            data = b'--XyZ\r\ncontent-disposition: form-data; name="file"\r\n\r\nx\r\n--XyZ--\r\n'
            async with gateway.http.post(url, data=data, headers=headers | kind) as answer:
                assert (answer.status, await answer.json()) == (400, refusal)


async def test_refusals(serve: Serve, backend: FakeBackend) -> None:
    oracle = Oracle()
    async with Upstream(answering({"text": ""})) as up:
        backend.add("ears", up, capabilities=SPEECH)
        backend.add("text")
        async with serve(max_upload=1_000_000) as gateway:
            cases = [
                (raw_io(form(model="nobody")), 404, "model_not_found"),
                (raw_io(form(model="text")), 404, "model_not_capable"),
                (raw_io(form(model=None)), 400, "missing_required_parameter"),
                (raw_io(form(model="x" * 5000)), 400, "invalid_multipart"),
                (raw_io(b"no form at all"), 400, "invalid_multipart"),
                (raw_io(b"--BB\r\n" + b"x: " + b"y" * 50_000), 400, "invalid_multipart"),
                (raw_io(form(size=3_000_000)), 413, "request_too_large"),
                (pieces(form(size=3_000_000)), 413, "request_too_large"),
            ]
            for data, status, code in cases:
                got, error = await post(gateway, TRANSCRIBE, data)
                assert got == status, code
                oracle.check("ErrorResponse", error)
                assert error["error"]["code"] == code
            got, error = await gateway.post(TRANSCRIBE, {"model": "ears"})
            assert (got, error["error"]["code"]) == (400, "invalid_multipart")


_NAMED = b'Content-Disposition: form-data; name="model"'


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([], "part 1 has no Content-Disposition"),
        ([b"Content-Type: text/plain"], "part 1 has no Content-Disposition"),
        ([b"Content-Disposition: form-data"], "part 1 has no Content-Disposition"),
        ([b"Content-Disposition: form-data; name*=utf-8''model"], "part 1 has no Content-Disposition"),
        ([b'Content-Disposition: form-data; name="x"', _NAMED], "part 1 is named twice"),
        ([_NAMED, b'content-disposition: form-data; name="x"'], "part 1 is named twice"),
        ([_NAMED + b'; name="x"'], "part 1 is named twice"),
        ([_NAMED + b"; NAME = x"], "part 1 is named twice"),
        ([_NAMED + b"; name*=utf-8''x"], "part 1 is named twice"),
        ([b'Content-Disposition: form-data; name="x"; filename="a; b"; name="model"'], "part 1 is named twice"),
        ([_NAMED, b"Content-Transfer-Encoding: base64"], "Content-Transfer-Encoding 'base64'"),
        ([_NAMED, b"Content-Transfer-Encoding: quoted-printable"], "'quoted-printable'"),
        ([_NAMED + b'; filename=""'], "'model' is a file"),
        ([_NAMED.replace(b" form", b"\r\n form")], "part 1"),
        ([_NAMED, b"x: " + b"y" * 70_000], "part 1"),
        ([_NAMED, *(b"x%d: y" % number for number in range(500))], "part 1"),
    ],
)  # fmt: skip
async def test_a_part_that_two_readers_may_read_in_two_ways(
    serve: Serve, backend: FakeBackend, headers: list[bytes], words: str
) -> None:
    raw = (
        b"--BB\r\n"
        + b"".join(line + b"\r\n" for line in headers)
        + b"\r\nears\r\n"
        + form(model=None)
    )
    async with Upstream(answering({"text": ""})) as up:
        backend.add("ears", up, capabilities=SPEECH)
        async with serve() as gateway:
            status, error = await post(gateway, TRANSCRIBE, raw_io(raw))
        assert not up.received
    assert (status, error["error"]["code"]) == (400, "invalid_multipart")
    assert words in error["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        [_NAMED, b"Content-Transfer-Encoding: 8bit"],
        [_NAMED, b"content-transfer-encoding: BINARY "],
        [_NAMED.upper().replace(b"MODEL", b"model")],
        [_NAMED.replace(b'"', b"")],
        [_NAMED.replace(b"form-data;", b'form-data; x="a; name=b";')],
        [b"Content-Length: 4", b"Content-Type: text/plain; charset=ISO-8859-1", _NAMED],
    ],
)
async def test_a_part_as_clients_write_it(
    serve: Serve, backend: FakeBackend, headers: list[bytes]
) -> None:
    raw = b"--BB\r\n" + b"\r\n".join(headers) + b"\r\n\r\nears\r\n" + form(model=None)
    async with Upstream(answering({"text": "hello"})) as up:
        backend.add("ears", up, capabilities=SPEECH)
        async with serve() as gateway:
            assert await post(gateway, TRANSCRIBE, raw_io(raw)) == (200, {"text": "hello"})
    assert up.received[0].body == raw


async def test_an_engine_that_refuses_early_is_heard(serve: Serve, backend: FakeBackend) -> None:
    """It answers before it has read the body, and closes."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b'{"error":"too long"}', status="400 Bad Request"))
        await writer.drain()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listener, Upstream(sending()) as up:
        up.port = listener.sockets[0].getsockname()[1]
        backend.add("ears", up, capabilities=SPEECH)
        async with serve() as gateway:

            async def slow():
                async for piece in pieces(form(size=3_000_000)):
                    yield piece
                    await asyncio.sleep(0.001)

            status, error = await post(gateway, TRANSCRIBE, slow())
            assert status == 400
            assert error["error"]["message"] == "too long"
            assert gateway.app.pool.counts() == (0, 0)


@pytest.mark.parametrize(("patience", "expected"), [(60.0, 200), (0.0, 504)])
async def test_a_long_file_may_take_longer_than_a_generation(
    serve: Serve, backend: FakeBackend, patience: float, expected: int
) -> None:
    async with Upstream(sending(1.0, response(b'{"text": ""}'))) as up:
        backend.add("ears", up, capabilities=SPEECH, upload_patience=patience)
        async with serve(request_timeout=0.2) as gateway:
            status, _ = await post(gateway, TRANSCRIBE, form())
    assert status == expected


async def test_32_uploads_at_once_are_not_mixed_up(serve: Serve, backend: FakeBackend) -> None:
    async def digest(received: Received, writer: asyncio.StreamWriter) -> bool:
        text = hashlib.sha256(received.body).hexdigest()
        return await answering({"text": text})(received, writer)

    async with Upstream(digest) as up:
        backend.add("ears", up, capabilities=SPEECH)
        async with serve() as gateway:

            async def one(number: int) -> None:
                raw = form(size=300_000 + number)
                raw = raw.replace(b"\x00", bytes([number]))
                _, answer = await post(gateway, TRANSCRIBE, pieces(raw))
                assert answer["text"] == hashlib.sha256(raw).hexdigest()

            await asyncio.gather(*(one(number) for number in range(32)))


async def test_a_client_that_leaves_halfway(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering({"text": ""})) as up:
        backend.add("ears", up, capabilities=SPEECH)
        async with serve() as gateway:

            async def half():
                yield form(size=600_000)[:300_000]
                await asyncio.sleep(30)

            with pytest.raises((TimeoutError, aiohttp.ClientError)):
                async with asyncio.timeout(0.3):
                    await post(gateway, TRANSCRIBE, half())
            async with asyncio.timeout(60):
                while backend.in_flight or gateway.app.pool.counts()[0]:
                    await asyncio.sleep(0.01)
    assert up.received == []


@pytest.mark.parametrize("chunks", [True, False])
async def test_an_alias_behind_a_large_file(
    serve: Serve,
    backend: FakeBackend,
    chunks: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits on disk, in a file without a name: nothing is left, whatever ends the gateway."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    raw = form(model="whisper-1", model_first=False, size=9_000_000)
    seen: list[list[Path]] = []

    async def slowly():
        for at in range(0, len(raw), 500_000):
            yield raw[at : at + 500_000]
            seen.append(list(tmp_path.iterdir()))

    async with Upstream(answering({"text": "hello"})) as up:
        backend.add("ears", up, capabilities=SPEECH, names={"whisper-1": "ears"})
        async with serve() as gateway:
            status, answer = await post(gateway, TRANSCRIBE, slowly() if chunks else raw_io(raw))
    assert (status, answer) == (200, {"text": "hello"})
    assert up.received[0].body == form(model="ears", model_first=False, size=9_000_000)
    assert up.received[0].header("content-length") == str(len(up.received[0].body))
    assert not any(seen)
    assert list(tmp_path.iterdir()) == []


async def test_a_form_that_waited_is_sent_again_where_it_was_not_begun(
    serve: Serve, backend: FakeBackend
) -> None:
    raw = form(model_first=False, size=6_000_000)
    async with Upstream(sending(close=True)) as down, Upstream(answering({"text": "x"})) as up:
        backend.add("ears", down, up, capabilities=SPEECH)
        async with serve() as gateway:
            status, _ = await post(gateway, TRANSCRIBE, raw_io(raw))
    assert status == 200
    assert up.received[0].body == raw


async def test_a_disk_that_cannot_be_written_is_said(
    serve: Serve, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    backend.add("ears", capabilities=SPEECH)
    async with serve() as gateway:
        raw = raw_io(form(model_first=False, size=6_000_000))
        headers = {"content-type": "multipart/form-data; boundary=BB"}
        url = gateway.url + TRANSCRIBE
        async with gateway.http.post(url, data=raw, headers=headers) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (507, "no_disk_space")
            assert answer.headers["x-should-retry"] == "false"
    assert f"{tmp_path / 'gone'} cannot be written: No such file or directory" in error["message"]
    assert "Put the field 'model' before 'file'" in error["message"]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    script = (
        "import asyncio; from yibu.gateway.requests.spool import Spool; spool = Spool(); "
        "[asyncio.run(spool.write(bytes(1 << 20))) for _ in range(20)]"
    )
    command = [*with_disks({tmp_path: "6m"}), sys.executable, "-c", script]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (
        f"NoRoomError: The upload names its model behind the file, so it has to wait on disk, and {tmp_path} is full"
        in done.stderr
    )


BAD_TYPES = [
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=BB",
    "multipart/form-data; boundary=BB; boundary=CC", "multipart/form-data; boundary=BB;BOUNDARY=BB",
    f"multipart/form-data; boundary={'B' * 71}", 'multipart/form-data; boundary="B B "',
    "multipart/form-data; boundary=B{B", 'multipart/form-data; boundary="B\\"B"',
    "multipart/form-data; boundary=BB, multipart/form-data; boundary=CC",
    "multipart/form-data boundary=BB", "multipart/form-data; boundary=BB; x", "xmultipart/form-data; boundary=BB",
]  # fmt: skip
GOOD_TYPES = [
    "multipart/form-data; boundary=BB", 'Multipart/Form-Data;boundary="BB"; charset=utf-8',
    "multipart/form-data; Boundary=BB", "MULTIPART/FORM-DATA; X-9=a; BOUNDARY=BB",
    "multipart/form-data; charset=utf-8; boundary=BB ;",
]  # fmt: skip


@pytest.mark.parametrize("kind", BAD_TYPES + GOOD_TYPES)
async def test_a_form_has_one_boundary(serve: Serve, backend: FakeBackend, kind: str) -> None:
    async with Upstream(answering({"text": ""})) as up:
        backend.add("ears", up, capabilities=SPEECH)
        async with serve() as gateway:
            url = gateway.url + TRANSCRIBE
            async with gateway.http.post(
                url, data=form(), headers={"content-type": kind}
            ) as answer:
                assert answer.status == (200 if kind in GOOD_TYPES else 400)
                if answer.status == 400:
                    assert (await answer.json())["error"]["code"] == "invalid_multipart"


EMPTY = b'--BB\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'
NAMED = b'--BB\r\nContent-Disposition: form-data; name="model"'
BROKEN = {
    "ends before its last boundary": form()[:-8],
    "has more than 256 parts": EMPTY * 60_000,
    "given twice": NAMED + b"\r\n\r\nears\r\n" + form(),
    "is a file": NAMED + b'; filename="x"\r\n\r\nears\r\n' + form(),
    "does not begin with the boundary": b"--CC\r\n" + form(),
    "not UTF-8": NAMED + b"\r\n\r\n\xff\xff\r\n--BB--\r\n",
    "header": form()[:-8] + b"\r\n--BB\r\n" + b"x: y\r\n" * 100 + b"\r\n\r\n--BB--\r\n",
}


@pytest.mark.parametrize("reason", BROKEN)
@pytest.mark.parametrize("chunks", [True, False])
async def test_broken_forms_are_refused_and_never_whole_at_the_engine(
    serve: Serve, backend: FakeBackend, reason: str, chunks: bool
) -> None:
    raw = BROKEN[reason]
    async with Upstream(answering({"text": ""})) as up:
        backend.add("ears", up, capabilities=SPEECH)
        async with serve() as gateway:
            data = pieces(raw, 1000) if chunks and len(raw) < 10_000 else raw_io(raw)
            status, answer = await post(gateway, TRANSCRIBE, data)
            assert (status, answer["error"]["code"]) == (400, "invalid_multipart")
            assert reason in answer["error"]["message"]
    assert up.received == []


async def test_others_are_answered_between_the_parts_of_a_form(serve: Serve) -> None:
    """The scanner yields: a request that comes later is answered earlier."""
    part = b'--BB\r\nContent-Disposition: form-data; name="x"; a=' + b'"' * 3900 + b"\r\n\r\n\r\n"
    async with serve() as gateway:
        await asyncio.to_thread(gateway.app.surface)
        large = asyncio.create_task(post(gateway, TRANSCRIBE, raw_io(part * 255 + b"--BB--\r\n")))
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            async with gateway.http.get(gateway.url + "/healthz") as answer:
                assert answer.status == 200
            assert not large.done()
            assert (await large)[0] == 400


async def test_the_official_python_sdk(serve: Serve, backend: FakeBackend) -> None:
    import openai  # takes as long as all else that these tests import

    audio = b"RIFF" + bytes(6_000_000)
    async with Upstream(answering({"text": "hello"})) as up:
        backend.add("ears", up, capabilities=SPEECH, names={"whisper-1": "ears"})
        async with serve() as gateway:
            client = openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="x")
            heard = await client.audio.transcriptions.create(
                model="whisper-1", file=("a.wav", audio), response_format="json"
            )
            await client.close()
    assert heard.text == "hello"
    assert b"\r\n\r\nears\r\n" in up.received[0].body
    assert audio in up.received[0].body


SCRIPT = """
const { OpenAI, toFile } = require("openai");
const client = new OpenAI({ baseURL: process.argv[1], apiKey: "x", maxRetries: 0 });
(async () => {
  const file = await toFile(Buffer.alloc(6000000, 7), "a.wav");
  const heard = await client.audio.transcriptions.create({ file, model: "whisper-1" });
  console.log(heard.text);
})();
"""


async def test_the_official_javascript_sdk(
    serve: Serve, backend: FakeBackend, engine_cache: Path
) -> None:
    """It writes the fields in the order given: the file, then the model."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    env = {
        **os.environ,
        "NODE_PATH": f"{engine_cache / 'node_modules'}:{os.environ.get('NODE_PATH', '')}",
    }
    resolve = [node, "-e", 'require.resolve("openai")']
    found = subprocess.run(resolve, env=env, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"its package is not here: npm install --prefix {engine_cache} openai")
    async with Upstream(answering({"text": "hello"})) as up:
        backend.add("ears", up, capabilities=SPEECH, names={"whisper-1": "ears"})
        async with serve() as gateway:
            url = gateway.url + "/v1"
            process = await asyncio.create_subprocess_exec(
                node, "-e", SCRIPT, url, env=env, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
    assert out == b"hello\n"
    body = up.received[0].body
    assert body.index(b'name="file"') < body.index(b'name="model"\r\n\r\nears\r\n')

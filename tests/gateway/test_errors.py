"""One envelope on every path, with the right status; engines' errors translated."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from typing import Any

import aiohttp
import orjson
import pytest
from uvicorn.protocols.http import httptools_impl

from yibu.config.schema import GatewaySchema

from .conftest import SPEECH, FakeBackend, Serve, chat
from .oracle import Oracle
from .upstream import (
    LLAMA_CHAT,
    LLAMA_CHAT_STREAM,
    STREAM_HEAD,
    Upstream,
    answering,
    chunked,
    response,
    sending,
    streaming,
)

COMPLETIONS = "/v1/chat/completions"
KEY = "a-long-enough-key"


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, "There is no model 'nobody' here; those that exist: first"),
        ("en-US,en;q=0.9,zh;q=0.8", "There is no model 'nobody' here; those that exist: first"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "这里没有模型 'nobody'；现有：first"),
    ],
)
async def test_an_error_is_in_the_language_that_the_client_asks_for(
    serve: Serve, backend: FakeBackend, asked: str | None, said: str
) -> None:
    backend.add("first")
    headers = {} if asked is None else {"Accept-Language": asked}
    async with serve() as gateway:
        url = gateway.url + COMPLETIONS
        async with gateway.http.post(url, json=chat("nobody"), headers=headers) as answer:
            error = (await answer.json())["error"]
    assert (error["message"], error["code"]) == (said, "model_not_found")


async def test_unknown_models_paths_and_methods(
    serve: Serve, backend: FakeBackend, oracle: Oracle
) -> None:
    backend.add("first")
    backend.add("ears", capabilities=SPEECH)
    async with serve() as gateway:
        cases = [
            ("POST", COMPLETIONS, chat("nobody"), 404, "model_not_found", "first, ears"),
            ("POST", COMPLETIONS, chat("ears"), 404, "model_not_capable", "/v1/audio/transcr"),
            ("POST", "/v1/score", {"model": "first"}, 404, "model_not_capable", "chat"),
            ("POST", "/v1/score", {"model": "first"}, 404, "model_not_capable", "llama.cpp"),
            ("GET", COMPLETIONS, None, 405, "method_not_allowed", "POST"),
            ("DELETE", "/healthz", None, 405, "method_not_allowed", "DELETE"),
            ("GET", "/nope", None, 404, "unknown_path", "/nope"),
            ("POST", "/v1/files", {}, 404, "unknown_path", "/v1/files"),
        ]
        for method, path, body, status, code, words in cases:
            async with gateway.http.request(method, gateway.url + path, json=body) as answer:
                error = await answer.json()
                assert answer.status == status, path
                assert answer.headers["x-request-id"]
                oracle.check("ErrorResponse", error)
                assert error["error"]["code"] == code
                assert words in error["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "not JSON"),
        (b"", "empty"),
        (b"[]", "array"),
        (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', "not JSON"),
        (b'{"a":' * 5000, "not JSON"),
        (b'{"temperature":NaN}', "not JSON"),
    ],
)
async def test_bodies_that_are_not_json_objects(
    serve: Serve, backend: FakeBackend, oracle: Oracle, raw: bytes, words: str
) -> None:
    backend.add("m")
    headers = {"content-type": "application/json"}
    async with (
        serve() as gateway,
        gateway.http.post(gateway.url + COMPLETIONS, data=raw, headers=headers) as got,
    ):
        error = await got.json()
        assert got.status == 400
        oracle.check("ErrorResponse", error)
        assert words in error["error"]["message"]


async def test_a_web_page_cannot_post_without_asking(serve: Serve, backend: FakeBackend) -> None:
    backend.add("m")
    body = json.dumps(chat())
    async with (
        serve() as gateway,
        gateway.http.post(gateway.url + COMPLETIONS, data=body) as answer,
    ):
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == "unsupported_media_type"


async def test_keys(serve: Serve, backend: FakeBackend, oracle: Oracle) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve(keys=(KEY, "another-good-key")) as gateway:
            for given in (None, "Bearer wrong-key-here", f"Basic {KEY}", "Bearer", KEY):
                headers = {"authorization": given} if given else {}
                status, error = await gateway.post(COMPLETIONS, chat(), headers=headers)
                assert status == 401, given
                oracle.check("ErrorResponse", error)
                assert error["error"]["code"] == "invalid_api_key"
            for key in (KEY, "another-good-key"):
                headers = {"authorization": f"Bearer {key}"}
                status, _ = await gateway.post(COMPLETIONS, chat(), headers=headers)
                assert status == 200
            for path, status in (("/v1/models", 401), ("/metrics", 401), ("/healthz", 200)):
                async with gateway.http.get(gateway.url + path) as answer:
                    assert answer.status == status, path
    assert up.received[0].header("authorization") == "Bearer inner-key"


@pytest.mark.parametrize("chunks", [False, True])
async def test_bodies_over_the_limit(serve: Serve, backend: FakeBackend, chunks: bool) -> None:
    backend.add("m")
    body = orjson.dumps(chat(user="x" * 3_000_000))

    async def pieces():
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    headers = {"content-type": "application/json"}
    async with serve(max_body=1_000_000) as gateway:
        data = pieces() if chunks else io.BytesIO(body)
        async with gateway.http.post(gateway.url + COMPLETIONS, data=data, headers=headers) as got:
            assert got.status == 413
            error = (await got.json())["error"]
    assert error["code"] == "request_too_large"
    for key in re.findall(r"gateway\.(\w+)", error["message"]):
        assert key in GatewaySchema.model_fields


@pytest.mark.parametrize(
    ("status", "raw", "expected"),
    [
        (
            "400 Bad Request",
            {"error": {"code": 400, "message": "Field 'n': no", "type": "invalid_request_error"}},
            {
                "message": "Field 'n': no",
                "type": "invalid_request_error",
                "param": "n",
                "code": "invalid_value",
            },
        ),
        (
            "400 Bad Request",
            {
                "error": {
                    "code": 400,
                    "message": "too long",
                    "type": "exceed_context_size_error",
                    "n_ctx": 1024,
                }
            },
            {
                "message": "too long",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            },
        ),
        (
            "501 Not Implemented",
            {"error": {"code": 501, "message": "no", "type": "not_supported_error"}},
            {"message": "no", "type": "server_error", "param": None, "code": "not_supported_error"},
        ),
        (
            "422 Unprocessable Entity",
            {"detail": [{"loc": ["body", "n"], "msg": "bad"}]},
            {
                "message": "body.n: bad",
                "type": "invalid_request_error",
                "param": "n",
                "code": "invalid_value",
            },
        ),
    ],
)
async def test_engines_errors_are_translated(
    serve: Serve, backend: FakeBackend, oracle: Oracle, status: str, raw: object, expected: object
) -> None:
    async with Upstream(answering(raw, status=status)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            got, error = await gateway.post(COMPLETIONS, chat())
    assert got == int(status[:3])
    oracle.check("ErrorResponse", error)
    assert error["error"] == expected
    assert backend.finished == [("m-0", False)]


async def test_a_page_instead_of_an_error_is_not_shown(serve: Serve, backend: FakeBackend) -> None:
    page = response(b"<html>secret</html>", status="500 Oops", kind="text/html")
    async with Upstream(sending(page)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            status, error = await gateway.post(COMPLETIONS, chat())
    assert status == 500
    assert "secret" not in error["error"]["message"]


@pytest.mark.parametrize(
    "behaviour",
    [
        sending(close=True),
        sending(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n", close=True),
        sending(b"what is this\r\n\r\n"),
        sending(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n"),
        sending(response(b'{"a":1}')[:-3], close=True),
    ],
    ids=["closed", "half a head", "garbage", "huge headers", "half a body"],
)
async def test_a_broken_engine_is_tried_once_more_elsewhere(
    serve: Serve, backend: FakeBackend, behaviour
) -> None:
    async with Upstream(behaviour) as broken, Upstream(answering(LLAMA_CHAT)) as good:
        backend.add("m", broken, good)
        backend.add("alone", broken)
        async with serve() as gateway:
            status, _ = await gateway.post(COMPLETIONS, chat())
            assert status == 200
            assert backend.finished == [("m-0", True), ("m-1", False)]
            status, error = await gateway.post(COMPLETIONS, chat("alone"))
            assert status == 502
            assert error["error"]["code"] == "engine_gone"
            assert gateway.app.pool.counts()[0] == 0


async def test_an_engine_that_is_not_there(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(sending()) as up:
        backend.add("m", up)
    async with serve() as gateway:
        status, error = await gateway.post(COMPLETIONS, chat())
        assert status == 502
        assert "no connection" in error["error"]["message"]


async def test_a_model_that_is_not_ready(serve: Serve, backend: FakeBackend) -> None:
    backend.add("m", state="starting")
    async with serve() as gateway:
        async with gateway.http.post(gateway.url + COMPLETIONS, json=chat()) as answer:
            assert answer.status == 503
            assert answer.headers["retry-after"] == "3"
            assert (await answer.json())["error"]["code"] == "model_not_ready"
        async with gateway.http.get(gateway.url + "/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["models"] == {"m": "starting"}


async def test_a_model_that_never_got_a_plan_says_why(serve: Serve, backend: FakeBackend) -> None:
    """What it could do is not known, so nothing is said of that."""
    backend.add("m", state="failed", capabilities=frozenset())
    async with serve() as gateway:
        for path, body in ((COMPLETIONS, chat()), ("/tokenize", {"model": "m", "prompt": "a"})):
            status, error = await gateway.post(path, body)
            assert status == 503
            assert error["error"]["code"] == "model_not_ready"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_silent_engine_times_out(serve: Serve, backend: FakeBackend, stream: bool) -> None:
    async with Upstream(sending(30.0)) as up:
        backend.add("m", up)
        async with serve(request_timeout=0.2) as gateway:
            status, error = await gateway.post(COMPLETIONS, chat(stream=stream))
    assert status == 504
    assert error["error"]["code"] == "engine_timeout"
    assert backend.finished == [("m-0", True)]


@pytest.mark.parametrize("conforming", [False, True])
async def test_a_stream_that_breaks_ends_in_an_error_event(
    serve: Serve, backend: FakeBackend, conforming: bool
) -> None:
    async with Upstream(streaming(*LLAMA_CHAT_STREAM[:2], close=True)) as up:
        backend.add("m", up, up, conforming=conforming)
        async with serve() as gateway:
            text = await gateway.stream(COMPLETIONS, chat(stream=True))
    parts = text.split("\n\n")
    assert parts[-1] == ""
    error = json.loads(parts[-2].removeprefix("data: "))
    assert error["error"]["code"] == "engine_gone"
    assert len(up.received) == 1  # it had begun: no second replica was asked


async def test_an_error_event_of_the_engine_is_translated(
    serve: Serve, backend: FakeBackend
) -> None:
    bad = b'{"error":{"code":500,"message":"boom","type":"server_error"}}'
    async with Upstream(streaming(LLAMA_CHAT_STREAM[0], bad)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            text = await gateway.stream(COMPLETIONS, chat(stream=True))
    error = json.loads(text.split("\n\n")[-2].removeprefix("data: "))
    assert error["error"] == {
        "message": "boom",
        "type": "server_error",
        "param": None,
        "code": "engine_error",
    }


async def test_a_stale_connection_is_replaced_unseen(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            await gateway.post(COMPLETIONS, chat())

            async def close_the_second(received, writer):
                if received.connection == 1:
                    return False
                return await answering(LLAMA_CHAT)(received, writer)

            up.behaviour = close_the_second
            status, _ = await gateway.post(COMPLETIONS, chat())
            assert status == 200
    assert [received.connection for received in up.received] == [1, 1, 2]
    assert backend.finished[-1] == ("m-0", False)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("7", range(7, 8)),
        ("864000", range(864000, 864001)),
        ("Thu, 31 Dec 2099 23:59:59 GMT", range(10**9, 4 * 10**9)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", range(1, 2)),
    ],
)
async def test_when_to_come_again_reaches_the_client(
    serve: Serve, backend: FakeBackend, named: str, told: range
) -> None:
    body = b'{"error":{"message":"The queue is full","type":"rate_limit_error"}}'
    refusal = response(body, status=f"429 Too Many Requests\r\nretry-after: {named}")
    async with Upstream(sending(refusal)) as up:
        backend.add("m", up)
        async with serve() as gateway, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{gateway.server.port}{COMPLETIONS}"
            async with session.post(url, json=chat()) as answer:
                assert answer.status == 429
                assert int(answer.headers["retry-after"]) in told


@pytest.mark.parametrize(
    ("fields", "status", "type_"),
    [
        ({"code": 429}, 429, "rate_limit_error"),
        ({"code": "429"}, 429, "rate_limit_error"),
        ({"type": "rate_limit_error"}, 429, "rate_limit_error"),
        ({"type": "requests", "code": "rate_limit_exceeded"}, 429, "rate_limit_error"),
        ({"type": "invalid_request_error"}, 400, "invalid_request_error"),
        ({"code": 404}, 404, "invalid_request_error"),
        ({"code": 401}, 502, "server_error"),
        ({"code": "invalid_api_key"}, 502, "server_error"),
        ({"code": 503}, 503, "server_error"),
        ({"code": "weird"}, 502, "server_error"),
        ({"code": 999}, 502, "server_error"),
        ({"code": True}, 502, "server_error"),
    ],
)
async def test_an_error_inside_a_success_is_told_by_its_own_words(
    serve: Serve, backend: FakeBackend, fields: dict[str, Any], status: int, type_: str
) -> None:
    async with Upstream(answering({"error": {"message": "no", **fields}})) as up:
        backend.add("m", up)
        async with serve() as gateway:
            found, answer = await gateway.post(COMPLETIONS, chat())
    assert (found, answer["error"]["type"]) == (status, type_)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("high_water", [httptools_impl.HIGH_WATER_LIMIT, 0])
async def test_a_client_that_leaves_ends_its_generation(
    serve: Serve,
    backend: FakeBackend,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
    high_water: int,
) -> None:
    # 0: as if the body's last bytes had come faster than the engine took them.
    monkeypatch.setattr(httptools_impl, "HIGH_WATER_LIMIT", high_water)
    parts = (STREAM_HEAD, chunked(b"data: {}\n\n"), 30.0) if stream else (30.0,)
    async with Upstream(sending(*parts)) as up:
        backend.add("m", up, conforming=True)
        async with serve() as gateway:
            call = asyncio.create_task(gateway.post(COMPLETIONS, chat(stream=stream)))
            async with asyncio.timeout(60):
                while not up.received:
                    await asyncio.sleep(0.005)
                call.cancel()
                await up.received[0].disconnected.wait()
                while backend.in_flight:
                    await asyncio.sleep(0.005)
    assert backend.finished == [("m-0", False)]


async def test_the_log_line(
    serve: Serve, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "yibu.gateway.access")
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve(keys=(KEY,)) as gateway:
            headers = {"authorization": f"Bearer {KEY}", "x-request-id": "mine-1"}
            body = chat(messages=[{"role": "user", "content": "a private matter"}])
            async with gateway.http.post(
                gateway.url + COMPLETIONS, json=body, headers=headers
            ) as answer:
                assert answer.headers["x-request-id"] == "mine-1"
            await gateway.post(COMPLETIONS, chat(), headers={"x-request-id": "bad id\u00e9"})
            async with gateway.http.get(gateway.url + "/a%0Ab c") as answer:
                assert answer.status == 401
    lines = [
        record.getMessage() for record in caplog.records if record.name == "yibu.gateway.access"
    ]
    assert len(lines) == 3
    assert lines[0].startswith(f"POST {COMPLETIONS} 200 model=m replica=m-0 ")
    for words in ("prompt=31", "completion=3", "stream=no", "id=mine-1"):
        assert words in lines[0]
    assert "private" not in lines[0]
    assert KEY not in "".join(lines)
    assert "id=req-" in lines[1]
    assert "\n" not in lines[2]


async def test_a_refusal_says_what_to_send_and_not_stars(
    serve: Serve, backend: FakeBackend
) -> None:
    backend.add("first")
    async with serve(keys=["a-key-of-sixteen-characters"]) as gateway:
        url = gateway.url + COMPLETIONS
        async with gateway.http.post(url, json=chat("first")) as answer:
            english = (await answer.json())["error"]["message"]
        chinese_asked = {"Accept-Language": "zh"}
        async with gateway.http.post(url, json=chat("first"), headers=chinese_asked) as answer:
            chinese = (await answer.json())["error"]["message"]
    assert "Authorization: Bearer YOUR_KEY" in english
    assert "请发送请求头 Authorization: Bearer YOUR_KEY" in chinese

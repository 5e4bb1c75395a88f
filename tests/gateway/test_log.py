"""The log: nothing secret in it, and one write for what one turn of the event loop says."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from yibu import log

from .conftest import FakeBackend, Serve, chat
from .upstream import LLAMA_CHAT, Upstream, answering

logger = logging.getLogger("test")


class Stream(io.StringIO):
    """Counts writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


@pytest.fixture
def stream() -> Iterator[Stream]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = Stream()
    log.configure(stream=stream)
    yield stream
    root.handlers[:], level = before
    root.setLevel(level)


async def test_one_turn_of_the_loop_is_one_write(stream: Stream) -> None:
    for number in range(5):
        logger.info("line %d", number)
    assert stream.writes == 0
    await asyncio.sleep(0)
    assert stream.writes == 1
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == list("01234")


async def test_a_warning_takes_what_came_before_it_along(stream: Stream) -> None:
    logger.info("before")
    logger.warning("now")
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["before", "now"]


def test_without_a_loop_every_line_is_written_at_once(stream: Stream) -> None:
    logger.info("line")
    assert stream.getvalue().endswith(" INFO test line\n")


def test_secrets_are_taken_out_of_exceptions_too(stream: Stream) -> None:
    try:
        raise ValueError("api_key=sk-very-secret")
    except ValueError:
        logger.exception("failed with token: abcdefgh")
    assert "Traceback" in stream.getvalue()
    assert "sk-very-secret" not in stream.getvalue()
    assert "abcdefgh" not in stream.getvalue()


def test_objects_hold_what_text_would_and_no_secret(stream: Stream) -> None:
    log.configure(stream=stream, form="json")
    logger.warning('said token="abcd1234efgh" to %s\nand more', "x")
    try:
        raise ValueError("api_key=sk-very-secret")
    except ValueError:
        logger.exception("failed")
    handler = log.structured()
    assert handler is not None
    handler.write_fields("access", {"status": 200, "path": "/v1/x?api_key=sk-very-secret-1"})
    handler.flush()
    warning, failed, access = map(json.loads, stream.getvalue().splitlines())
    assert warning["level"] == "warning"
    assert warning["logger"] == "test"
    assert datetime.fromisoformat(warning["time"]).tzinfo is not None
    assert failed["message"] == "failed"
    assert "ValueError" in failed["exception"]
    assert access["status"] == 200
    assert "very-secret" not in stream.getvalue()
    assert "abcd1234efgh" not in stream.getvalue()


async def test_programs_that_only_look_leave_no_line_unless_they_are_refused(
    stream: Stream, serve: Serve, backend: FakeBackend
) -> None:
    auth = {"Authorization": "Bearer a-long-enough-key"}
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve(keys=["a-long-enough-key"]) as gateway:
            for path in ("/metrics", "/healthz", "/readyz"):
                for method in ("GET", "HEAD"):
                    await gateway.http.request(method, gateway.url + path, headers=auth)
            await gateway.http.get(gateway.url + "/metrics")
    lines = [line for line in stream.getvalue().splitlines() if "gateway.access" in line]
    said = [line.partition("gateway.access ")[2].partition(" model=")[0] for line in lines]
    assert said == ["GET /metrics 401"]


async def test_requests_are_objects_with_fields(
    stream: Stream, serve: Serve, backend: FakeBackend
) -> None:
    log.configure(stream=stream, form="json")
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            await gateway.post("/v1/chat/completions", chat())
            await gateway.http.get(gateway.url + "/no\u00e9where")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    answered, missing = [line for line in lines if line["logger"] == "yibu.gateway.access"]
    assert answered["model"] == "m"
    assert (answered["prompt_tokens"], answered["completion_tokens"]) == (31, 3)
    assert answered["status"] == 200
    assert answered["total_ms"] > 0
    assert missing["status"] == 404
    assert missing["method"] == "GET"

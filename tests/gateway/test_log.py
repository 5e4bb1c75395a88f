"""The log: nothing secret in it, and one write for what one turn of the event loop says."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from yibu import log

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

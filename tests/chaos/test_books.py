"""The books and the acts themselves: each act seen without a gateway, and faults that are noticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.acts import ACTS, Order, text_of
from tests.chaos.books import Books, Entry, FaultError, Response, judge
from tests.chaos.client import WAYS, Customer, Line, Ration, request
from tests.chaos.engine import Connection, Server
from tests.chaos.ledger import EXACT
from tests.support.polling import eventually

NONCE = "n0123456789abcdef"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The engine, in a thread."""
    with Server(("127.0.0.1", 0), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def entry(act: str = "plain", form: str = "whole", words: int = 30) -> Entry:
    return Entry(Order(act, NONCE, words, at=3), "chaos", form == "stream", True, "kept")


MILD = [
    (act.name, form)
    for act in ACTS.values()
    for form in act.forms
    if not act.lethal
    and not act.name.startswith("hang")
    and act.name != "finish_without_done"  # the gateway adds it
]


@pytest.mark.parametrize(("name", "form"), MILD)
async def test_an_act_is_what_it_says(port: int, name: str, form: str) -> None:
    """A client that is right about HTTP tells right answers from what is none."""
    asked = entry(name, form)
    async with Line.to(port) as line:
        line.send(request(asked))
        found = await line.response()
    if ACTS[name].expected == "answer":
        assert judge(asked, found) == "answer"
    elif ACTS[name].expected == "error":
        with contextlib.suppress(FaultError):  # a gateway has to make an error of it
            assert judge(asked, found) in ("error", "broken")


async def test_bytes_that_nobody_asked_for_are_found(port: int) -> None:
    async with Line.to(port) as line:
        line.send(request(entry("answered_twice")))
        assert (await line.response()).complete
        assert (await line.response()).complete  # as a second client would read it
        line.send(request(entry("late_bytes")))
        assert (await line.response()).complete
        while not (data := await line.unasked()):
            assert line.usable
        assert b"late" in data


async def test_a_connection_that_ends_while_the_loop_is_busy_is_not_used_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with Line.to(server.getsockname()[1]) as line:
            other, _ = server.accept()
            waiting = asyncio.create_task(line.unasked())
            await asyncio.sleep(0)
            other.close()
            time.sleep(0.005)
            assert await waiting == b""
            assert not line.usable


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_client_leaves_no_connection_open(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.client.WAYS", {way: 1})
    came: list[asyncio.StreamWriter] = []
    left = 0

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        came.append(writer)
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        left += 1
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = Customer(Books(60), port, random.Random(2), {"calm": False}, Ration(60))
        running = asyncio.create_task(client.run())
        await eventually(lambda: came)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await eventually(lambda: left == len(came))


def whole(text: str, **changes: object) -> Response:
    choice = {"message": {"content": text}, "finish_reason": "stop", **changes}
    body = json.dumps({"model": "chaos", "choices": [choice]}).encode()
    return Response(200, {"content-type": "application/json"}, body, complete=True)


def events(*parts: str, complete: bool = True) -> Response:
    body = "".join(f"data: {part}\n\n" for part in parts).encode()
    return Response(200, {"content-type": "text/event-stream"}, body, complete)


def piece(text: str, reason: str | None = None) -> str:
    choice = {"delta": {"content": text}, "finish_reason": reason}
    return json.dumps({"model": "chaos", "choices": [choice]})


RIGHT = f"{NONCE}·易0"
ERROR = json.dumps({"error": {"message": "m", "type": "t", "param": None, "code": "c"}})


def test_what_is_right() -> None:
    assert judge(entry(words=1), whole(RIGHT)) == "answer"
    stream = entry(form="stream", words=1)
    assert judge(stream, events(piece(RIGHT), piece("", "stop"), "[DONE]")) == "answer"
    assert judge(stream, events(piece(NONCE), ERROR)) == "error"
    assert judge(stream, events(piece(RIGHT), complete=False)) == "broken"
    assert judge(stream, Response(503, {}, ERROR.encode(), complete=True)) == "error"


@pytest.mark.parametrize(
    "response",
    [
        whole(NONCE),
        whole(RIGHT.replace("0123", "3210")),
        whole(RIGHT, finish_reason=None),
        Response(204, {}, b"", complete=True),
        Response(502, {}, b"Bad Gateway", complete=True),
        Response(502, {}, b'{"error": "no"}', complete=True),
        Response(200, {"content-type": "text/html"}, b"<html>", complete=True),
        events(piece(RIGHT), piece("", "stop"), "[DONE]"),
    ],
)
def test_what_is_wrong_in_a_whole_answer(response: Response) -> None:
    with pytest.raises(FaultError):
        judge(entry(words=1), response)


@pytest.mark.parametrize(
    "parts",
    [
        [piece(RIGHT), piece("", "stop")],
        [piece(RIGHT), "[DONE]"],
        [piece(NONCE), piece("", "stop"), "[DONE]"],
        [piece(RIGHT), piece("", "stop"), "[DONE]", "[DONE]"],
        [piece(RIGHT), piece("", "stop"), piece("", "stop"), "[DONE]"],
        [piece(RIGHT), ERROR, "[DONE]"],
        [piece(RIGHT), ERROR, ERROR],
        [piece("other"), ERROR],
        [piece(RIGHT.replace("0123", "3210")), ERROR],
        [piece(RIGHT), "{"],
    ],
)
def test_what_is_wrong_in_a_stream(parts: list[str]) -> None:
    with pytest.raises(FaultError):
        judge(entry(form="stream", words=1), events(*parts))


def test_what_must_not_fail_is_told_from_what_may() -> None:
    refused = Response(502, {}, ERROR.encode(), complete=True)
    books = Books(limit=30)
    books.end(books.begin(entry("cut")), refused)
    assert not books.wrong
    books.end(books.begin(entry("plain")), refused)
    (wrong,) = books.wrong
    assert "its engine answered well" in wrong
    span = books.trouble("chaos")
    books.end(books.begin(entry("plain")), refused)
    books.over(span)
    assert books.wrong == [wrong]
    books.end(books.begin(entry("html", words=1)), whole(RIGHT))
    assert "what was no answer is told as one" in books.wrong[1]


def test_what_takes_too_long_or_never_ends() -> None:
    books = Books(limit=-1.0)
    books.end(books.begin(entry(words=1)), whole(RIGHT))
    assert "took" in books.wrong[0]
    books.limit = -6.0
    late = books.begin(entry(words=1))
    books.overdue()
    assert "never ended" in books.wrong[1]
    books.end(late, whole(RIGHT))
    assert "took" in books.wrong[2]


def test_an_answer_that_was_read_after_the_kill_may_be_lost_or_not() -> None:
    """Its last byte lay in the socket when the node was killed, which had not written its usage yet."""
    for counted in (0, 1):
        books = Books(limit=30)
        asked = books.begin(entry(words=5))
        asked.key = EXACT
        books.ledger.killed()
        books.end(asked, whole(text_of(NONCE, 5)))
        usage = {EXACT: {"requests": counted, "errors": 0, "total_tokens": 12 * counted}}
        assert not books.ledger.compare(usage)


def test_an_answer_of_a_node_that_lives_is_counted() -> None:
    books = Books(limit=30)
    books.ledger.killed()
    asked = books.begin(entry(words=5))
    asked.key = EXACT
    books.end(asked, whole(text_of(NONCE, 5)))
    missing, *_ = books.ledger.compare({})
    assert missing == "usage of the key exact: the node counted 0 requests, its clients 1 to 1"

"""What the chaos engine does when a prompt says so: one small function an act, in a registry.

The engine runs the function; the books read beside it what the client must see then. An act gets
a :class:`Talk`, the request it answers with the socket it came by, and returns whether the
connection goes on. Standard library only: the engine starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Expected = Literal["answer", "error", "either"]
MARK = "chaos "
"""A prompt is this and the order, as JSON."""


def text_of(nonce: str, words: int) -> str:
    """The right answer: every word bears the nonce, and characters of three bytes to be cut in."""
    return " ".join(f"{nonce}·易{index}" for index in range(words))


PROMPT_TOKENS = 7


@dataclass(frozen=True)
class Order:
    """One prompt: what to do, and what to say."""

    act: str
    nonce: str
    words: int
    at: int = 0
    """After how many events a stream goes wrong."""

    def prompt(self) -> str:
        return MARK + json.dumps(self.__dict__)

    @staticmethod
    def of(prompt: object) -> Order:
        """The order in a prompt; anything else (a probe) is answered plainly."""
        if isinstance(prompt, str) and prompt.startswith(MARK):
            return Order(**json.loads(prompt.removeprefix(MARK)))
        return Order("plain", "probe", 1)


def usage_of(order: Order) -> dict[str, int]:
    """What the engine counts: known to the client too, so that the node's usage can be held against it."""
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": order.words,
        "total_tokens": PROMPT_TOKENS + order.words,
    }


class Talk:
    """A request that is being answered, and ways to say what is right."""

    def __init__(self, connection: socket.socket, path: str, body: dict[str, Any]) -> None:
        self.connection = connection
        self.chat = path.endswith("/chat/completions")
        self.stream = bool(body.get("stream"))
        prompt = body["messages"][-1]["content"] if self.chat else body.get("prompt")
        self.order = Order.of(prompt)
        self.text = text_of(self.order.nonce, self.order.words)
        self._counts = bool((body.get("stream_options") or {}).get("include_usage"))

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def body(self) -> bytes:
        """A whole answer."""
        said = {"message": {"role": "assistant", "content": self.text}} if self.chat else {"text": self.text}  # fmt: skip
        choices = [{"index": 0, "finish_reason": "stop", "logprobs": None, **said}]
        return self._shell("", choices, usage=True)

    def events(self) -> list[bytes]:
        """A stream's events: a piece of the text each, then the reason why it ended."""
        pieces = [piece + " " for piece in self.text.split(" ")]
        pieces[-1] = pieces[-1][:-1]
        return [*map(self._event, pieces), self._event("", "stop")]

    def ending(self) -> list[bytes]:
        """What ends a stream: the usage, where it was asked for, and [DONE]."""
        usage = (
            [b"data: " + self._shell(".chunk", [], usage=True) + b"\n\n"] if self._counts else []
        )
        return [*usage, DONE]

    def _event(self, piece: str, reason: str | None = None) -> bytes:
        said = {"delta": {"content": piece} if piece else {}} if self.chat else {"text": piece}
        choices = [{"index": 0, "finish_reason": reason, "logprobs": None, **said}]
        return b"data: " + self._shell(".chunk", choices) + b"\n\n"

    def _shell(self, suffix: str, choices: list[dict[str, Any]], *, usage: bool = False) -> bytes:
        kind = "chat.completion" + suffix if self.chat else "text_completion"
        shell = {"id": "c", "object": kind, "created": 1, "model": "chaos", "choices": choices}
        if usage:
            shell["usage"] = usage_of(self.order)
        return json.dumps(shell, ensure_ascii=False).encode()

    def answer(self, body: bytes, status: str = "200 OK", kind: str = "application/json") -> None:
        self.send(head(status, kind, f"content-length: {len(body)}") + body)

    def events_head(self, framing: str = "transfer-encoding: chunked") -> None:
        self.send(head("200 OK", "text/event-stream", framing))

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def whole_or_stream(self, pause: float = 0.0) -> None:
        if not self.stream:
            time.sleep(pause)
            self.answer(self.body())
            return
        self.events_head()
        for event in [*self.events(), *self.ending()]:
            self.chunk(event)
            time.sleep(pause)
        self.send(b"0\r\n\r\n")

    def begin(self) -> None:
        """The part of an answer that stands before what goes wrong."""
        if self.stream:
            self.events_head()
            for event in self.events()[: self.order.at]:
                self.chunk(event)
        else:
            body = self.body()
            length = f"content-length: {len(body)}"
            self.send(head("200 OK", "application/json", length) + body[: len(body) // 2])


def head(status: str, kind: str, *lines: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", f"content-type: {kind}", *lines, "", "")).encode()


DONE = b"data: [DONE]\n\n"
Function = Callable[[Talk], bool]


@dataclass(frozen=True)
class Act:
    name: str
    run: Function
    expected: Expected
    """What the client must see: the right answer, an error, or either of the two."""
    lethal: bool
    """It ends or stops the engine, so other requests may suffer."""
    forms: tuple[str, ...]
    finishes: bool
    """A right answer in events has a finish_reason."""


ACTS: dict[str, Act] = {}


def act(
    expected: Expected,
    *,
    lethal: bool = False,
    forms: tuple[str, ...] = ("whole", "stream"),
    finishes: bool = True,
) -> Callable[[Function], Function]:
    """Register a function as an act, under its own name."""

    def register(run: Function) -> Function:
        ACTS[run.__name__] = Act(run.__name__, run, expected, lethal, forms, finishes)
        return run

    return register


STREAM, WHOLE = ("stream",), ("whole",)

# Right answers, in ways that a gateway may stumble over ----------------------------------------


@act("answer")
def plain(talk: Talk) -> bool:
    talk.whole_or_stream()
    return True


@act("answer")
def trickle(talk: Talk) -> bool:
    talk.whole_or_stream(pause=0.03)
    return True


@act("answer")
def one_write(talk: Talk) -> bool:
    """The whole of it at once, its end with it: more than a reader takes before it pauses."""
    if not talk.stream:
        talk.answer(talk.body())
        return True
    events = [*talk.events(), *talk.ending()]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    talk.send(head("200 OK", "text/event-stream", "transfer-encoding: chunked") + framed)
    talk.send(b"0\r\n\r\n")
    return True


@act("answer")
def shreds(talk: Talk) -> bool:
    """Cut anywhere: in a head, a chunk's length, a character."""
    data = (
        head("200 OK", "text/event-stream", "transfer-encoding: chunked")
        + b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in [*talk.events(), *talk.ending()])
        + b"0\r\n\r\n"
        if talk.stream
        else head("200 OK", "application/json", f"content-length: {len(talk.body())}") + talk.body()
    )
    step = max(7, len(data) // 60)
    for start in range(0, len(data), step):
        talk.send(data[start : start + step])
        time.sleep(0.001)
    return True


@act("answer", forms=WHOLE)
def late_bytes(talk: Talk) -> bool:
    """Bytes after the content-length, when the gateway may have given the connection back."""
    talk.answer(talk.body())
    time.sleep(0.05)
    with contextlib.suppress(OSError):
        talk.send(b'{"late": "bytes"}\r\n')
    return True


@act("answer", forms=WHOLE)
def answered_twice(talk: Talk) -> bool:
    """In one write: a second answer that comes once the connection was taken for the next request
    cannot be told from that one's."""
    body = talk.body()
    talk.send(2 * (head("200 OK", "application/json", f"content-length: {len(body)}") + body))
    return True


@act("answer")
def closed_after(talk: Talk) -> bool:
    """Keep-alive, it says, and hangs up."""
    talk.whole_or_stream()
    return False


@act("answer", forms=STREAM)
def finish_without_done(talk: Talk) -> bool:
    talk.events_head()
    for event in [*talk.events(), *talk.ending()[:-1]]:
        talk.chunk(event)
    talk.send(b"0\r\n\r\n")
    return True


@act("answer")
def to_the_end_of_the_connection(talk: Talk) -> bool:
    """Whole, without a length: only the end of the connection ends it."""
    if talk.stream:
        talk.events_head("connection: close")
        talk.send(b"".join([*talk.events(), *talk.ending()]))
    else:
        talk.send(head("200 OK", "application/json", "connection: close") + talk.body())
    return False


@act("answer", forms=STREAM)
def comments(talk: Talk) -> bool:
    talk.events_head()
    for event in [*talk.events(), *talk.ending()]:
        talk.chunk(b": ping\n\n" + event)
    talk.send(b"0\r\n\r\n")
    return True


@act("answer", lethal=True)
def exit_zero_after(talk: Talk) -> bool:
    talk.whole_or_stream()
    talk.connection.shutdown(socket.SHUT_WR)
    os._exit(0)


@act("answer", lethal=True)
def grandchild(talk: Talk) -> bool:
    """A process in a session of its own, which must not outlive the engine."""
    subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(3600)"],
        start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    talk.whole_or_stream()
    return True


# What may be understood or refused, but not forwarded as it is ---------------------------------


@act("either", forms=STREAM)
def lone_cr(talk: Talk) -> bool:
    talk.events_head()
    for event in [*talk.events(), *talk.ending()]:
        talk.chunk(event.replace(b"\n", b"\r"))
    talk.send(b"0\r\n\r\n")
    return True


@act("either", forms=STREAM)
def named_events(talk: Talk) -> bool:
    talk.events_head()
    for number, event in enumerate([*talk.events(), *talk.ending()]):
        talk.chunk(b"id: %d\nevent: message\n" % number + event)
    talk.send(b"0\r\n\r\n")
    return True


@act("either")
def invalid_utf8(talk: Talk) -> bool:
    """In a field that nobody reads; what is forwarded has to be JSON."""
    broken = b'"chaos", "note": "\xff\xc3"'
    if talk.stream:
        talk.events_head()
        for event in [*talk.events(), *talk.ending()]:
            talk.chunk(event.replace(b'"chaos"', broken))
        talk.send(b"0\r\n\r\n")
    else:
        talk.answer(talk.body().replace(b'"chaos"', broken))
    return True


@act("either", forms=STREAM, finishes=False)
def done_without_finish(talk: Talk) -> bool:
    talk.events_head()
    for event in [*talk.events()[:-1], *talk.ending()]:
        talk.chunk(event)
    talk.send(b"0\r\n\r\n")
    return True


@act("either", forms=WHOLE)
def huge_head(talk: Talk) -> bool:
    body = talk.body()
    filler = (f"x-filler-{n}: {'x' * 1000}" for n in range(200))
    talk.send(head("200 OK", "application/json", *filler, f"content-length: {len(body)}") + body)
    return False


# What is no answer -----------------------------------------------------------------------------


@act("error")
def cut(talk: Talk) -> bool:
    talk.begin()
    return False


@act("error")
def reset(talk: Talk) -> bool:
    talk.begin()
    talk.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return False


@act("error")
def hang_up(talk: Talk) -> bool:
    """Not a byte; with a second replica it is tried once more, there with the same end."""
    return False


@act("error", forms=STREAM)
def half_chunk(talk: Talk) -> bool:
    talk.begin()
    talk.send(b"400\r\ndata: {")
    return False


@act("error", forms=STREAM)
def ended_early(talk: Talk) -> bool:
    """Well framed, but neither a reason why it ended nor [DONE]: it was cut before it came here."""
    talk.begin()
    talk.send(b"0\r\n\r\n")
    return True


@act("error", forms=STREAM)
def cut_to_the_end_of_the_connection(talk: Talk) -> bool:
    talk.events_head("connection: close")
    talk.send(b"".join(talk.events()[: talk.order.at]))
    return False


@act("error", forms=STREAM)
def error_event(talk: Talk) -> bool:
    talk.begin()
    talk.chunk(b'data: {"error": {"message": "out of memory", "type": "server", "code": 500}}\n\n')
    talk.send(b"0\r\n\r\n")
    return True


@act("error", forms=WHOLE)
def no_content(talk: Talk) -> bool:
    talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    return True


@act("error")
def html(talk: Talk) -> bool:
    talk.answer(b"<html><body>Welcome to nginx!</body></html>", kind="text/html")
    return True


@act("error")
def plain_text(talk: Talk) -> bool:
    talk.answer(talk.text.encode(), kind="text/plain; charset=utf-8")
    return True


@act("error", forms=WHOLE)
def cut_json(talk: Talk) -> bool:
    """Well framed, but half of it is missing."""
    talk.answer(talk.body()[:-20])
    return True


@act("error")
def redirect(talk: Talk) -> bool:
    talk.send(head("302 Found", "text/plain", "location: /login", "content-length: 0"))
    return True


@act("error")
def failure(talk: Talk) -> bool:
    talk.answer(b'{"error": {"message": "no", "type": "x", "code": 500}}', "500 Oh")
    return True


@act("error")
def failure_in_html(talk: Talk) -> bool:
    talk.answer(b"<html>Bad Gateway</html>", "502 Bad Gateway", "text/html")
    return True


@act("error")
def no_http(talk: Talk) -> bool:
    talk.send(b"SSH-2.0-OpenSSH_9.9\r\n")
    return False


@act("error")
def hang(talk: Talk) -> bool:
    """Until the gateway gives it up."""
    talk.connection.settimeout(60)
    with contextlib.suppress(OSError):
        talk.connection.recv(1)
    return False


@act("error")
def hang_midway(talk: Talk) -> bool:
    talk.begin()
    return hang(talk)


@act("error", lethal=True)
def die(talk: Talk) -> bool:
    os._exit(1)


@act("error", lethal=True)
def die_midway(talk: Talk) -> bool:
    talk.begin()
    time.sleep(0.02)
    os._exit(0)


@act("error", lethal=True)
def stop_itself(talk: Talk) -> bool:
    talk.begin()
    os.kill(os.getpid(), signal.SIGSTOP)
    return False

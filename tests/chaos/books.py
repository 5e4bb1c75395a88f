"""The books of a chaos run: what each request was, what it got, and whether that is allowed."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.chaos.acts import ACTS, Order, text_of
from tests.chaos.ledger import Ledger

Outcome = Literal["answer", "error", "broken", "left", "dropped"]
"""``broken``: the connection ended within the response, so nobody takes it for whole; ``left``: our
client went away; ``dropped``: pipelined behind an answer after which the gateway closed."""

NONCE = re.compile(r"n[0-9a-f]{16}")


@dataclass
class Response:
    """A response as h11 read it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    complete: bool = False
    fault: str = ""
    """What h11 or the socket said, where it is not complete."""


@dataclass
class Entry:
    """One request of the run."""

    order: Order
    model: str
    stream: bool
    chat: bool
    how: str
    """kept, pipelined, slow, leaving or half-sent"""
    key: str = ""
    """The account that it belongs to."""
    secret: str = ""
    """Its key, as it was when the request began."""
    begun: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    outcome: Outcome | None = None
    response: Response | None = None
    answer: str | None = None
    """The right one, of an engine that does not read orders."""

    @property
    def right(self) -> str:
        return self.answer or text_of(self.order.nonce, self.order.words)


class FaultError(Exception):
    """A response is neither the right answer nor an error: what is wrong with it."""


def judge(entry: Entry, response: Response) -> Outcome:
    """What the client got.

    Raises:
        FaultError: it is neither the right answer nor an error that can be told from one.
    """
    seen = response.body.decode(errors="replace")
    foreign = set(NONCE.findall(seen)) - {entry.order.nonce}
    if foreign:
        raise FaultError(f"holds another request's answer: {foreign}")
    if not response.complete:
        return "broken"
    if response.status >= 400:
        check_error(loads(response.body))
        return "error"
    if response.status != 200:
        raise FaultError(f"status {response.status}")
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/event-stream") != entry.stream:
        raise FaultError(f"a stream was {'' if entry.stream else 'not '}asked for, {kind!r} came")
    return _stream(entry, response.body) if entry.stream else _whole(entry, response.body)


def _whole(entry: Entry, body: bytes) -> Outcome:
    answer = loads(body)
    choice = answer["choices"][0]
    text = choice["message"]["content"] if entry.chat else choice["text"]
    if text != entry.right:
        raise FaultError(f"the wrong text: {text[:200]!r}")
    if choice["finish_reason"] is None:
        raise FaultError("no finish_reason")
    if answer["model"] != entry.model:
        raise FaultError(f"the engine's name of the model shows: {answer['model']!r}")
    return "answer"


def _stream(entry: Entry, body: bytes) -> Outcome:
    text, finished, done, failed = "", 0, 0, 0
    right = entry.right
    for event in _events(body):
        if done or failed:
            raise FaultError(f"goes on after its end: {event[:200]!r}")
        if event == b"[DONE]":
            done += 1
            continue
        data = loads(event)
        if "error" in data:
            check_error(data)
            failed += 1
            continue
        if data["model"] != entry.model:
            raise FaultError(f"the engine's name of the model shows: {data['model']!r}")
        for choice in data["choices"]:
            text += (choice["delta"].get("content") or "") if entry.chat else choice["text"]
            finished += choice["finish_reason"] is not None
    if not right.startswith(text):
        raise FaultError(f"the wrong text: {text[:200]!r}")
    if failed:
        return "error"
    finishes = int(ACTS[entry.order.act].finishes)
    if not done or not finishes <= finished <= 1 or text != right:
        raise FaultError(
            f"ends as if it were whole: {len(text)} of {len(right)} characters,"
            f" {finished} finish_reasons, {done} [DONE]"
        )
    return "answer"


def _events(body: bytes) -> list[bytes]:
    if body and not body.endswith(b"\n\n"):
        raise FaultError(f"ends within an event: {body[-200:]!r}")
    found = []
    for event in body.split(b"\n\n"):
        data = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        found += [b"\n".join(data)] if data else []
    return found


def loads(data: bytes) -> Any:
    """JSON as a strict client reads it."""
    try:
        return json.loads(data.decode())
    except ValueError as error:
        raise FaultError(f"is no JSON in UTF-8: {error}: {data[:200]!r}") from None


def check_error(body: Any) -> None:
    """Whether it is OpenAI's shape."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not {"message", "type", "param", "code"} <= error.keys():
        raise FaultError(f"an error of another shape: {body!r:.200}")
    if error["code"] == "internal_error":
        raise FaultError(f"a defect of the gateway, as its log says: {body!r:.200}")


def _overlaps(entry: Entry, spans: list[list[float]]) -> bool:
    return any(start - 1 <= entry.ended and entry.begun <= end for start, end in spans)


class Books:
    """Every request, and what is wrong with any of them."""

    def __init__(self, limit: float, grace: float = 3.0) -> None:
        self.limit = limit
        """Seconds within which each request ends."""
        self._grace = grace
        self.open: dict[str, Entry] = {}
        self._orders: dict[str, str] = {}
        """What each request was, in words: whose answer another one got."""
        self.counts: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.notes: list[str] = []
        self.slowest = 0.0, "nothing"
        """The slowest recovery, as a share of what is promised, and whose it was."""
        self._troubles: dict[str, list[list[float]]] = {}
        self._crowds: list[list[float]] = []
        self.ledger = Ledger()
        self.slowness = 1.0
        """How much slower than one with nothing else to do the machine was at most."""

    def begin(self, entry: Entry) -> Entry:
        self.open[entry.order.nonce] = entry
        self._orders[entry.order.nonce] = f"{entry.order.act}, {entry.model}, {entry.how}"
        return entry

    def trouble(self, model: str) -> list[float]:
        """From now on requests to this model may fail, until :meth:`over`."""
        span = [time.monotonic(), float("inf")]
        self._troubles.setdefault(model, []).append(span)
        return span

    def crowd(self) -> list[float]:
        """From now on more may be asked than the queues hold, until :meth:`over`."""
        span = [time.monotonic(), float("inf")]
        self._crowds.append(span)
        return span

    def over(self, span: list[float], grace: float | None = None) -> None:
        span[1] = time.monotonic() + (self._grace if grace is None else grace)

    def troubled(self, entry: Entry) -> bool:
        """Whether something was done to its engine or node while it ran."""
        spans = self._troubles.get(entry.model, []) + self._troubles.get("*", [])
        return _overlaps(entry, spans)

    def _crowded_out(self, entry: Entry) -> bool:
        """Whether it was told to come back later, rightly and as it should be."""
        response = entry.response
        if response is None or response.status != 429:
            return False
        if not response.headers.get("retry-after", "").isdigit():
            raise FaultError(f"429 without a time to come back: {response.headers}")
        return _overlaps(entry, self._crowds)

    def end(self, entry: Entry, response: Response | None, outcome: Outcome | None = None) -> None:
        """Close an entry, and say what is wrong with it."""
        self.open.pop(entry.order.nonce, None)  # one that was overdue may end after all
        entry.ended, entry.response = time.monotonic(), response
        try:
            entry.outcome = outcome or judge(entry, response or Response(0, {}))
            self._allowed(entry)
        except (FaultError, LookupError, TypeError, AttributeError) as fault:
            self.accuse(entry, str(fault) if isinstance(fault, FaultError) else repr(fault))
        took = entry.ended - entry.begun
        if took > self.limit:
            self.accuse(entry, f"took {took:.1f} s")
        self.ledger.count(entry)
        self.counts[entry.order.act, str(entry.outcome)] += 1

    def _allowed(self, entry: Entry) -> None:
        if entry.outcome in ("left", "dropped"):
            return
        act, response = ACTS[entry.order.act], entry.response
        failed = entry.outcome != "answer"
        if not failed and act.expected == "error":
            raise FaultError("what was no answer is told as one")
        # A real engine may be slower on this machine than the gateway waits.
        slow = entry.answer and response and b'"engine_timeout"' in response.body
        excused = slow or self.troubled(entry) or self._crowded_out(entry)
        if failed and act.expected == "answer" and not act.lethal and not excused:
            raise FaultError("its engine answered well")
        if (
            entry.outcome == "broken"
            and not (response and response.status)
            and not self.troubled(entry)
        ):
            raise FaultError(f"no response at all: {response and response.fault}")
        # A body with a length cannot be ended but by the connection; a stream can, by an event.
        if entry.outcome == "broken" and entry.stream and not self.troubled(entry):
            raise FaultError(f"the connection broke: {response and response.fault}")

    def accuse(self, entry: Entry, fault: str) -> None:
        response = entry.response
        for nonce in NONCE.findall(fault):
            fault += f" (that is {self._orders.get(nonce)})"
        got = f"{response.status} {response.fault} {response.body[-300:]!r}" if response else ""
        self.wrong.append(
            f"{entry.order.act} ({'stream' if entry.stream else 'whole'}, {entry.model},"
            f" {entry.how}, {entry.order.nonce}): {fault} [{got}] at {time.strftime('%H:%M:%S')}"
        )

    def overdue(self) -> None:
        """Accuse what should have ended by now."""
        for entry in list(self.open.values()):
            if time.monotonic() - entry.begun > self.limit + 5:
                self.accuse(entry, "never ended")
                del self.open[entry.order.nonce]

    def summary(self) -> str:
        lines = [f"{act:34} {outcome:8} {n:6}" for (act, outcome), n in sorted(self.counts.items())]
        total = sum(self.counts.values())
        slowest = f"slowest recovery {self.slowest[1]}"
        counted = f"usage of {self.ledger.compared} requests counted by both sides"
        machine = f"the machine was up to {self.slowness:.1f} times slower than alone"
        return "\n".join(
            [
                *self.notes,
                *lines,
                slowest,
                counted,
                machine,
                f"{total} requests, {len(self.wrong)} wrong",
            ]
        )

"""Relays an engine's answer to the client: whole, or a stream as it comes."""

from __future__ import annotations

import re
import time
from collections.abc import Coroutine
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import orjson

from yibu.accounts.usage import Tokens
from yibu.engines.answers import Answers, Fields
from yibu.engines.requests import Call
from yibu.errors import RequestError
from yibu.gateway.answers.chunks import ChunkNormalizer
from yibu.gateway.answers.collect import AnswerCollector
from yibu.gateway.answers.engine_errors import Translator, translate, unserved
from yibu.gateway.answers.events import EventNormalizer
from yibu.gateway.answers.normalize import bad_answer, normalize_answer, read_answer
from yibu.gateway.answers.stepstream import events
from yibu.gateway.answers.usage import audio_seconds, generated, tokens_of
from yibu.gateway.http.exchange import Exchange, Headers
from yibu.gateway.limits import Accounting, estimate
from yibu.gateway.operations import Operation
from yibu.gateway.proxy.silence import KeepAlive
from yibu.gateway.requests.body import JsonRequest
from yibu.messages import tr
from yibu.routing import Lease, Route
from yibu.upstream.connection import EngineConnection, UpstreamError

MAX_ERROR_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""A whole JSON answer is held in memory up to this."""

_JSON = (b"content-type", b"application/json")

_END_SECONDS = 2.0
"""How long to wait for the end of a stream whose last event has come."""

_TRANSCRIPTS = (b"text/plain", b"text/vtt", b"text/srt", b"application/x-subrip")
"""Content types of transcripts other than JSON, by their ``response_format``."""

_TELLING = frozenset({"chat", "completions", "responses", "messages", "embeddings", "ranking"})
"""Operations whose answers cost tokens, counted by the engine or not."""

_SECONDS = re.compile(rb"\d{1,9}(?:\.\d{1,6})?")

Normalizer = ChunkNormalizer | EventNormalizer


class Relay:
    """One request's answer, from however many replicas are tried."""

    def __init__(
        self,
        exchange: Exchange,
        operation: Operation,
        route: Route,
        request: JsonRequest,
        rules: Answers,
        accounting: Accounting,
    ) -> None:
        self._accounting = accounting
        self.exchange = exchange
        self.operation = operation
        self.route = route
        self.request = request
        self._rules = rules
        self.collects = (
            operation.schema is not None
            and not route.conforming
            and rules.whole_from_stream(operation.kind, request.body)
        )
        """Whether the engine is asked for a stream that the client gets as a whole answer."""
        self.counts = (
            request.stream
            and operation.kind in {"chat", "completions"}
            and request.steps is None
            and not request.include_usage
        )
        """Whether the engine is asked for a stream's usage that the client did not ask for."""
        self.begun = False
        """Whether a part of the answer was sent: no other replica can begin it again."""
        self._sent = 0
        """Events that the client was sent."""
        self.inner = ""
        """The replica's name for the model."""
        self.waiting = KeepAlive(exchange)
        self.wait_head = self.waiting.head if request.stream else EngineConnection.wait_head
        """Waits for the engine's answer; a stream's client gets its head and comments meanwhile."""

    def take(self, lease: Lease) -> None:
        """Use this replica from now on."""
        self._progressed, endpoint = lease.progress, lease.endpoint
        self.exchange.replica = endpoint.replica
        meant = self.route.meant(self.request.model)
        served = endpoint.served_name if meant == self.route.model else None
        self.inner = served or meant

    async def wait_for(self, lease: Lease) -> None:
        """Wait for a replica; a stream's client gets its head and comments meanwhile.

        Raises:
            RequestError: there is none.
        """
        await (self.waiting.granted(lease) if self.request.stream else lease.granted())

    async def answer(self, connection: EngineConnection) -> None:
        """Send the client the answer whose head has come.

        Raises:
            RequestError: the engine refused, or what it answered is no answer.
            UpstreamError: it broke off.
        """
        operation, status = self.operation, connection.status
        given = dict(connection.headers)
        kind = given.get(b"content-type", b"").partition(b";")[0].strip().lower()
        coded = given.get(b"content-encoding", b"").lower() not in {b"", b"identity"}
        if status >= 400:
            self.waiting.stop()
            body = b"" if coded else await connection.read_all(MAX_ERROR_BYTES)
            raise unserved(
                status, body, operation.path, self.route, self._rules
            ) or translate(
                status, body, rules=self._rules, kind=operation.kind, model=self.request.model,
                inner=self.inner, retry_after=_retry_after(given.get(b"retry-after", b"")),
            )  # fmt: skip
        if status >= 300:
            raise bad_answer(self.request.model, _described(status, kind))
        upload = operation.schema is None
        if upload and _SECONDS.fullmatch(seconds := given.get(b"x-audio-seconds", b"")):
            self.exchange.audio_seconds = float(seconds)
        if coded:
            raise bad_answer(
                self.request.model, tr("found a compressed answer, which nobody asked for")
            )
        if kind == b"text/event-stream" and (upload or self.request.stream or self.collects):
            await self._stream(connection)
        elif (streams := self.request.stream or self.collects) or status in {204, 205}:
            raise bad_answer(self.request.model, _described(status, kind), stream=streams)
        elif kind == b"application/json" or kind.endswith(b"+json") or (not upload and not kind):
            await self._whole(connection)
        elif upload and kind in _TRANSCRIPTS:
            await self._text(connection, [(b"content-type", given[b"content-type"])])
        else:
            raise bad_answer(self.request.model, _described(status, kind))

    # Answers by steps ---------------------------------------------------------------------

    async def step(self, connection: EngineConnection, call: Call) -> Fields:
        """The answer to one of the engine requests that make up an answer.

        Raises:
            RequestError: the engine refused, or what it answered is not JSON.
        """
        status = connection.status
        raw = await connection.read_all(MAX_ANSWER_BYTES)
        if status == 501 and call.unsupported is not None:
            raise call.unsupported
        if status >= 300:
            raise self._errors()(status, raw)
        answer: Fields = orjson.loads(raw)
        self._progressed()
        return answer

    async def stepped(self, work: Coroutine[Any, Any, Fields]) -> None:
        """Send the answer that ``work`` returns; in one piece where a stream was asked for."""
        exchange, request = self.exchange, self.request
        answer = await self.waiting.result(work) if request.stream else await work
        self._complete(answer, self._rules)
        if not request.stream:
            await exchange.respond(200, [_JSON], orjson.dumps(answer))
            return
        await self._begin()
        await exchange.end(events(self.operation, request, answer))

    # Whole answers ------------------------------------------------------------------------

    async def _whole(self, connection: EngineConnection) -> None:
        request = self.request
        raw = await connection.read_all(MAX_ANSWER_BYTES)
        self._progressed()
        answer = read_answer(raw, request.model)
        conforming = self.route.conforming and answer.get("model", request.model) == request.model
        if "model" in answer:
            answer["model"] = request.model
        self._complete(answer, self._rules)
        await self.exchange.respond(200, [_JSON], raw if conforming else orjson.dumps(answer))

    async def _text(self, connection: EngineConnection, headers: Headers) -> None:
        """Forward a transcript; in one write when it is complete already."""
        exchange = self.exchange
        data = await connection.read()
        self._progressed()
        if connection.complete:
            last = await connection.read()
            await exchange.respond(200, headers, data + last if last else data)
            return
        headers += [item for item in connection.headers if item[0] == b"content-length"]
        await exchange.start(200, headers)
        self.begun = True
        while data:
            await exchange.write(data)
            data = await connection.read()
        await exchange.end()

    # Streams ------------------------------------------------------------------------------

    async def _stream(self, connection: EngineConnection) -> None:
        """Forward events as they come, until the answer is complete."""
        normalizer = self._normalizer()
        if self.collects:
            await self._collected(connection, normalizer)
            return
        self.exchange.stream = True
        self._sent = 0
        with self._accounting.going_on(self.exchange, partial(self._count, normalizer)):
            await self._events(connection, normalizer)

    async def _events(self, connection: EngineConnection, normalizer: Normalizer) -> None:
        exchange = self.exchange
        try:
            while data := await self.waiting.next(connection):
                self._progressed()
                if events := normalizer.feed(data):
                    await self._begin()
                    await exchange.write(events)
                    self._sent += events.count(b"\n\n")
                    self.waiting.written()
                if normalizer.ended:
                    connection.patience = _END_SECONDS
                if normalizer.error is not None:
                    raise normalizer.error
            rest = normalizer.finish()
            if normalizer.error is not None:
                raise normalizer.error
        except (UpstreamError, RequestError) as error:
            # Behind the last event nothing of the engine's matters.
            if isinstance(error, RequestError) or not normalizer.ended:
                exchange.event_number = normalizer.number
                raise
            rest = b""
        finally:
            self.waiting.stop()
            self._count(normalizer)
        await self._begin()
        await exchange.end(rest)

    def _complete(self, answer: Fields, rules: Answers) -> None:
        """Complete a whole answer, and note what its engine says that it used."""
        exchange, operation = self.exchange, self.operation
        usage = answer.get("usage")
        tokens = tokens_of(usage)  # before it is filled with zeros
        exchange.audio_seconds = audio_seconds(usage) or exchange.audio_seconds
        if not self.route.conforming:
            normalize_answer(
                answer, operation, self.request, rules, self._errors(),
                max_context=self.route.max_context,
            )  # fmt: skip
        if tokens is None and operation.kind in _TELLING:
            tokens = estimate(exchange, generated(answer) // 4)
        exchange.tokens = tokens

    def _count(self, normalizer: Normalizer) -> None:
        """Note what a stream has used until now."""
        self.exchange.tokens = self._tokens(normalizer)
        self.exchange.audio_seconds = normalizer.audio_seconds

    def _tokens(self, normalizer: Normalizer) -> Tokens | None:
        """Tokens of a stream. One that did not come to its end has at least one an event, whatever its
        first events have counted: those of Messages have the prompt alone."""
        events = self._sent
        counted, tells = normalizer.tokens, self.operation.kind in _TELLING
        if counted is None:
            return estimate(self.exchange, events) if tells and events else None
        if normalizer.ended or not tells or counted.completion >= events:
            return counted
        return counted._replace(completion=events, estimated=True)

    async def _begin(self) -> None:
        self.begun = True
        if not self.exchange.answering:
            await self.exchange.start_events()

    async def _collected(self, connection: EngineConnection, normalizer: Normalizer) -> None:
        """Send as a whole answer what the engine was asked to stream."""
        collector = AnswerCollector(self.operation.kind)
        while data := await connection.read():
            self._progressed()
            collector.feed(normalizer.feed(data))
            if normalizer.error is not None:
                raise normalizer.error
        collector.feed(normalizer.finish())
        if normalizer.error is not None:
            raise normalizer.error
        answer = collector.answer()
        self._complete(answer, Answers())
        await self.exchange.respond(200, [_JSON], orjson.dumps(answer))

    def _errors(self) -> Translator:
        return partial(
            translate,
            rules=self._rules, kind=self.operation.kind, model=self.request.model, inner=self.inner,
        )  # fmt: skip

    def _normalizer(self) -> Normalizer:
        kind, request, rules = self.operation.kind, self.request, self._rules
        conforming = self.route.conforming
        errors = self._errors()
        if self.collects:
            request = replace(request, include_usage=True)
        if kind in {"chat", "completions"}:
            return ChunkNormalizer(kind, request, rules, errors, conforming=conforming)
        return EventNormalizer(
            kind, request, rules, errors, conforming=conforming, max_context=self.route.max_context
        )


def _described(status: int, kind: bytes) -> str:
    return tr(
        "found status {status} with the content type {kind}",
        status=status,
        kind=kind.decode("latin-1") or tr("none"),
    )


def _retry_after(named: bytes) -> float | None:
    """Seconds, of an engine's Retry-After: a number of them or a date."""
    if named.isdigit():
        return float(named) if len(named) < 10 else None
    try:
        at = parsedate_to_datetime(named.decode("ascii"))
    except ValueError:
        return None
    return max(0.0, at.timestamp() - time.time())

"""What a caller may use: its models, its limits, and its usage.

Requests without limits cost a few attribute reads here, and one line of usage at their end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from yibu.accounts.handover import LimitsPredecessor, LimitsSuccessor
from yibu.accounts.limits import Admission, LimitRefusal, LimitVerdict, Meter, Window, admit
from yibu.accounts.live import Caller, LiveAccounts
from yibu.accounts.usage import Tokens, Used, correct
from yibu.channel import Channel
from yibu.errors import OverloadedError
from yibu.gateway.http.exchange import CLIENT_GONE, Exchange, Headers
from yibu.messages import tr
from yibu.routing import Route

_BYTES_A_TOKEN = 4
"""Bytes per token of English text, to estimate a prompt's tokens where nobody counts them."""


class BudgetSpentError(OverloadedError):
    """The key's budget of the day or month is used up."""

    type = "insufficient_quota"
    default_code = "insufficient_quota"
    should_retry = False


class Models(Protocol):
    """The models that a request may see."""

    def routes(self) -> Sequence[Route]: ...

    def route(self, model: str) -> Route | None: ...


def visible(models: Models, caller: Caller) -> Models:
    """The ``models`` that the caller may use."""
    return models if caller.models is None else _Allowed(models, caller.models)


class _Allowed:
    """The models of a list of names. An alias stands for its model with all its names; a LoRA adapter
    has to be listed itself."""

    def __init__(self, models: Models, names: frozenset[str]) -> None:
        self._models = models
        self._names = names

    def routes(self) -> Sequence[Route]:
        found = []
        for route in self._models.routes():
            meant = self._meant(route)
            names = {name: meaning for name, meaning in route.names.items() if meaning in meant}
            if route.model in meant:
                found.append(replace(route, names=names))
            else:  # only what it serves beside itself
                found += [replace(route, model=name, names={}) for name in names]
        return found

    def route(self, model: str) -> Route | None:
        route = self._models.route(model)
        return route if route is not None and route.meant(model) in self._meant(route) else None

    def _meant(self, route: Route) -> set[str]:
        own = {route.model, *route.names}
        return {route.meant(name) for name in self._names if name in own}


class Accounting:
    """Admits requests and records their usage."""

    def __init__(
        self,
        accounts: LiveAccounts | None,
        route: Callable[[str], Route | None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._accounts = accounts
        self._route = route
        self.clock = clock
        self._wall = wall
        self._models: dict[str, Meter] = {}
        self.known = asyncio.Event()
        """Unset until the replaced node has reported what is in use."""
        self.known.set()
        self._successor: LimitsSuccessor | None = None
        """The node that now keeps the limits."""
        self._going_on: dict[Exchange, Callable[[], None]] = {}
        if accounts is not None:
            accounts.before_write = self._note_all

    async def admit(self, exchange: Exchange, route: Route, name: str) -> None:
        """Let a request begin whose model is known, by the ``name`` that the client has for it.

        Raises:
            OverloadedError: a limit of the key's or of the model's is reached.
        """
        exchange.model = route.meant(name)
        meters = [] if exchange.caller.meter is None else [exchange.caller.meter]
        if route.limits:
            meters.append(self._model(route))
        if not meters:
            return
        tokens = _prompt_estimate(exchange)
        verdict = await self.begin(meters, tokens)
        exchange.limits = _headers(*verdict.windows)
        if verdict.refusal is not None:
            raise _error(verdict.refusal)
        exchange.admission = Admission(meters, tokens)

    async def begin(self, meters: Sequence[Meter], tokens: int) -> LimitVerdict:
        """Whether a request may begin; if so, it is counted."""
        if not self.known.is_set():
            await self.known.wait()
        if self._successor is not None:
            verdict = await self._successor.begin(meters, tokens)
            if verdict is not None:
                if verdict.refusal is None:  # for when that node is gone
                    for meter in meters:
                        meter.begin(tokens)
                return verdict
        return admit(meters, tokens, self.clock(), self._wall())

    def use(self, meters: Sequence[Meter], set_aside: int, tokens: int, hour: int) -> None:
        """Record what a request that goes on has taken."""
        if self._successor is not None:
            self._successor.use(meters, set_aside, tokens, hour)
        for meter in meters:
            meter.use(set_aside, tokens, hour)

    def end(self, meters: Sequence[Meter], set_aside: int, tokens: int) -> None:
        """Record that a request has ended."""
        if self._successor is not None:
            self._successor.end(meters, set_aside, tokens)
        for meter in meters:
            meter.end(set_aside, tokens)

    # While two nodes stand -----------------------------------------------------------------

    def expect(self) -> None:
        """Admit nothing until an old node has reported what is in use, or is gone."""
        self.known.clear()

    def take_over(self, channel: Channel) -> LimitsPredecessor:
        """Keep the limits for an old node too, until it is gone."""
        return LimitsPredecessor(channel, self, self.clock)

    def hand_over(self, channel: Channel) -> None:
        """Leave the limits to a new node from now on."""
        meters = [*self._models.values()]
        if self._accounts is not None:
            meters += self._accounts.meters()
        self._successor = LimitsSuccessor(channel, meters, self.clock())

    def meter(self, name: str) -> Meter | None:
        """The meter of that name; None for a key or a model without limits."""
        kind, _, of = name.partition(" ")
        if kind == "model":
            found = self._route(of)
            return self._model(found) if found is not None and found.limits else None
        known = self._accounts.meters() if self._accounts is not None else []
        return next((meter for meter in known if meter.name == name), None)

    def take(self, slot: Sequence[Any], used: Used) -> None:
        """Record usage that the node before this one could not write."""
        if self._accounts is not None:
            hour, key, model = slot
            self._accounts.take((hour, key, model), used)

    @contextmanager
    def going_on(
        self, exchange: Exchange, refresh: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Count what a request has used before each write to the database, until the block ends: a crash
        loses neither a long answer nor a session of hours, and budgets see them. ``refresh`` brings the
        exchange's numbers up to date."""
        self._going_on[exchange] = refresh
        try:
            yield
        finally:
            del self._going_on[exchange]

    def _note_all(self) -> None:
        for exchange, refresh in self._going_on.items():
            refresh()
            self._note(exchange)

    def _note(self, exchange: Exchange) -> None:
        """Record what a request has used by now, beyond what is recorded of it."""
        assert self._accounts is not None
        slot = self._accounts.slot(exchange.key, exchange.model)
        for where, change in correct(exchange.noted, slot, _used(exchange)).items():
            self._accounts.used_in(where).add(change)
            if (admission := exchange.admission) is not None and (admission[1] or change.tokens):
                self.use(*admission, change.tokens, where[0])
                exchange.admission = Admission(admission.meters, 0)

    def settle(self, exchange: Exchange) -> None:
        """Record a finished request's usage."""
        tokens = exchange.tokens
        if tokens is None and exchange.status == CLIENT_GONE and exchange.compute:
            # Who leaves early has nevertheless had the prompt read.
            tokens = exchange.tokens = Tokens(_prompt_estimate(exchange), 0, estimated=True)
        if exchange.noted:
            self._note(exchange)
            tokens = None
        if (admission := exchange.admission) is not None:
            exchange.admission = None
            self.end(*admission, tokens[0] + tokens[1] if tokens else 0)
        if self._accounts is None or exchange.model == "-":
            return
        used = self._accounts.used(exchange.key, exchange.model)
        if not exchange.noted:
            _count(exchange, used)
        if exchange.failed or (exchange.status >= 400 and exchange.status != CLIENT_GONE):
            used.errors += 1

    def _model(self, route: Route) -> Meter:
        meter = self._models.get(route.model)
        if meter is None or meter.limits != route.limits:
            who = tr("The model {model!r}", model=route.model)
            meter = meter or Meter(who, name=f"model {route.model}")
            meter.configure(route.limits, None, self.clock())
            self._models[route.model] = meter
        return meter


def _used(exchange: Exchange) -> Used:
    """What a request has used by now."""
    used = Used()
    _count(exchange, used)
    return used


def _count(exchange: Exchange, used: Used) -> None:
    used.requests += 1
    used.audio_seconds += exchange.audio_seconds
    used.compute_seconds += exchange.worked()
    if exchange.tokens is not None:
        prompt, completion, cached, estimated = exchange.tokens
        used.prompt_tokens += prompt
        used.completion_tokens += completion
        used.cached_tokens += cached
        used.estimated += estimated


def _prompt_estimate(exchange: Exchange) -> int:
    """An estimate of a prompt's tokens, by the size of a JSON body; at most the model's context. Pictures,
    which have far more bytes than tokens, do not count: a budget would be refused as spent for one."""
    if exchange.headers.get(b"content-type", b"").startswith(b"multipart/"):
        return 0
    tokens = max(0, exchange.bytes_in - exchange.bytes_inline) // _BYTES_A_TOKEN
    return tokens if exchange.prompt_most is None else min(tokens, exchange.prompt_most)


def estimate(exchange: Exchange, answer_tokens: int) -> Tokens:
    """An estimate of the tokens that the engine did not count."""
    return Tokens(_prompt_estimate(exchange), answer_tokens, estimated=True)


def _error(refusal: LimitRefusal) -> OverloadedError:
    who, limit = refusal.who, refusal.limit
    if refusal.kind == "budget":
        return BudgetSpentError(
            "{who} has used its budget: {used} of {limit} tokens; it begins anew in {wait}",
            who=who,
            used=refusal.used,
            limit=limit,
            wait=_duration(refusal.wait),
            retry_after=refusal.wait,
        )
    reached = {
        "concurrency": tr("{limit} requests at once, and as many are running", limit=limit),
        "requests": tr("{limit} requests a minute, and has", limit=limit),
        "tokens": tr("{limit} tokens a minute, and has", limit=limit),
    }[refusal.kind]
    return OverloadedError(
        "{who} may take {reached}; try again in {wait}",
        who=who,
        reached=reached,
        wait=_duration(refusal.wait),
        retry_after=refusal.wait,
    )


def _headers(requests: Window | None, tokens: Window | None) -> Headers:
    """As OpenAI has them: https://platform.openai.com/docs/guides/rate-limits."""
    headers: Headers = []
    for name, window in ((b"requests", requests), (b"tokens", tokens)):
        if window is not None:
            headers += [
                (b"x-ratelimit-limit-" + name, b"%d" % window.limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % window.remaining),
                (b"x-ratelimit-reset-" + name, _duration(window.reset).encode()),
            ]
    return headers


def _duration(seconds: float) -> str:
    """A duration as OpenAI writes it: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    head = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "")
    return f"{head}{rest:.0f}s" if head else f"{rest:g}s"

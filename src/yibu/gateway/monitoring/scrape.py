"""The engines' own metrics, fetched when the gateway's are.

Engines listen on loopback, on a port that changes, with a key that nobody knows: only the gateway
can ask them. They are asked all at once and have a limited time each, so that a slow or dead one
costs its own numbers and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yibu.gateway.monitoring.exposition import Merger, TooLongError
from yibu.prometheus import head, sample
from yibu.routing import Backend, ReplicaStatus
from yibu.upstream.ask import ask
from yibu.upstream.connection import UpstreamError

ENGINE_SECONDS = 2.0
"""Timeout for one engine's whole answer; Prometheus itself waits 10 s by default."""

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of one engine's answer; vLLM's has about 100 KB."""

_TEXT = (b"text/plain", b"application/openmetrics-text")
_HEADERS = [(b"accept", b"text/plain;version=0.0.4")]
_LABELS = ("model", "replica")


@dataclass(slots=True)
class _Scraped:
    model: str
    replica: str
    text: str | None
    """None: it did not answer as it should."""
    seconds: float
    dropped: int = 0


class EngineMetrics:
    """``page`` asks every ready replica. Whoever comes while that is under way gets the same
    answer, so that engines are never asked twice at a time. Bound to one event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._asking: asyncio.Task[list[_Scraped]] | None = None

    async def page(self, own: str) -> str:
        """``own``, followed by the engines' metrics and which of them could be read."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(), name="gateway-engine-metrics")
        # One client that leaves must not take the answer from the others.
        scraped = await asyncio.shield(self._asking)
        return await asyncio.to_thread(_merged, own, scraped)

    async def aclose(self) -> None:
        """Cancel what is in progress."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask_all(self) -> list[_Scraped]:
        ready = [one for one in self._backend.replicas() if one.endpoint is not None]
        answers = await asyncio.gather(*(self._ask(one) for one in ready))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, replica: ReplicaStatus) -> _Scraped | None:
        """None for an engine that has no metrics (a command of the user's)."""
        assert replica.endpoint is not None
        began = time.monotonic()
        text: str | None = None
        try:
            answer = await ask(
                replica.endpoint,
                "GET",
                "/metrics",
                seconds=ENGINE_SECONDS,
                limit=MAX_BYTES,
                headers=_HEADERS,
            )
        except UpstreamError:
            return _Scraped(
                replica.model, replica.replica, None, round(time.monotonic() - began, 6)
            )
        # Some servers answer every path with their web page.
        textual = answer.content_type.startswith(_TEXT)
        if answer.status == 404 or (answer.status == 200 and not textual):
            return None
        if answer.status == 200:
            # Bytes that are not UTF-8 spoil their own label value, not the page.
            text = answer.body.decode(errors="replace")
        return _Scraped(replica.model, replica.replica, text, round(time.monotonic() - began, 6))


_ABOUT: tuple[tuple[str, str, Callable[[_Scraped], float]], ...] = (
    (
        "engine_scrape_up",
        "1 when the engine's own metrics were read, 0 when that failed",
        lambda one: int(one.text is not None),
    ),
    ("engine_scrape_seconds", "Time that the engine took to answer", lambda one: one.seconds),
    (
        "engine_scrape_dropped_lines",
        "Lines of the engine's that could not be used",
        lambda one: one.dropped,
    ),
)


def _merged(own: str, scraped: Sequence[_Scraped]) -> str:
    """The whole page. Runs in a thread: vLLM's thousand lines would hold streams up."""
    heads = [head(name, text, "gauge") for name, text, _ in _ABOUT]
    merger = Merger("\n".join([own, *(line for lines in heads for line in lines)]))
    for one in scraped:
        if one.text is not None:
            try:
                one.dropped = merger.add(one.text, {"model": one.model, "replica": one.replica})
            except TooLongError:
                one.text = None
    lines: list[str] = []
    for top, (name, _, value) in zip(heads, _ABOUT, strict=True):
        rows = [((one.model, one.replica), value(one)) for one in scraped]
        lines += [*top, *(sample(name, _LABELS, *row) for row in rows)]
    return own + "\n".join(lines) + "\n" + merger.text()

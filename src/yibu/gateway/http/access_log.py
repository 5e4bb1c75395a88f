"""A finished request's metrics and its line in the access log."""

from __future__ import annotations

import logging
import time

from yibu.gateway.http.exchange import CLIENT_GONE, Exchange
from yibu.gateway.monitoring.metrics import GatewayMetrics
from yibu.log import structured, write_line

logger = logging.getLogger("yibu.gateway.access")

_LOOKS = frozenset({"/metrics", "/healthz", "/readyz"})


def record(exchange: Exchange, metrics: GatewayMetrics) -> None:
    """Count the request and write its line; never prompts, never keys."""
    total = time.perf_counter() - exchange.started
    first = (exchange.first_byte - exchange.started) if exchange.first_byte else total
    labels = (exchange.model, exchange.label)
    key = exchange.caller.labels
    metrics.requests[(*labels, str(exchange.status), *key)] += 1
    metrics.observe(metrics.duration, labels, total)
    if exchange.status < 400:  # a refusal comes at once, and would pass for a fast model
        metrics.observe(metrics.first_byte, labels, first)
    model = (exchange.model,)
    metrics.received[model] += exchange.bytes_in
    metrics.sent[model] += exchange.bytes_out
    if exchange.tokens is not None:
        metrics.tokens[(exchange.model, "prompt", *key)] += exchange.tokens[0]
        metrics.tokens[(exchange.model, "completion", *key)] += exchange.tokens[1]
    if logger.isEnabledFor(logging.INFO) and not _polled(exchange):
        if (handler := structured()) is not None:
            handler.write_fields(logger.name, _fields(exchange, first, total))
        else:
            write_line(logger, _line(exchange, first, total))


def _polled(exchange: Exchange) -> bool:
    """Whether a program only looked, as it does every few seconds: an open console, `yibu top`,
    Prometheus, a load balancer. Their lines would bury the others."""
    answered = exchange.status < 400 or exchange.status == CLIENT_GONE
    looked = exchange.path in _LOOKS or exchange.path.startswith("/console/")
    return exchange.method in ("GET", "HEAD") and answered and looked


def _line(exchange: Exchange, first: float, total: float) -> str:
    prompt, completion = exchange.tokens[:2] if exchange.tokens else ("-", "-")
    path = exchange.path if exchange.path == exchange.label else _printable(exchange.path)
    line = (
        f"{exchange.method} {path} {exchange.status} model={exchange.model} "
        f"replica={exchange.replica} first_byte_ms={first * 1000:.1f} "
        f"total_ms={total * 1000:.1f} in={exchange.bytes_in} out={exchange.bytes_out} "
        f"prompt={prompt} completion={completion} stream={'yes' if exchange.stream else 'no'} "
        f"client={exchange.key} id={exchange.request_id.decode()}"
    )
    return line if exchange.trace is None else f"{line} trace={exchange.trace.id}"


def _fields(exchange: Exchange, first: float, total: float) -> dict[str, object]:
    """The line's values as fields, for JSON logs."""
    prompt, completion = exchange.tokens[:2] if exchange.tokens else (None, None)
    path = _printable(exchange.path)
    return {
        "message": f"{exchange.method} {path} {exchange.status}",
        "method": exchange.method,
        "path": path,
        "status": exchange.status,
        "model": exchange.model,
        "replica": exchange.replica,
        "first_byte_ms": round(first * 1000, 1),
        "total_ms": round(total * 1000, 1),
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "stream": exchange.stream,
        "client": exchange.key,
        "request_id": exchange.request_id.decode(),
        **({"trace_id": exchange.trace.id} if exchange.trace is not None else {}),
    }


def _printable(path: str) -> str:
    """The path, escaped and shortened so that it cannot forge or fill the log."""
    if path.isascii() and path.isprintable() and len(path) <= 200 and " " not in path:
        return path
    return ascii(path[:200]).replace(" ", "\\x20")

"""Traces of requests by OpenTelemetry, where the OTEL_* variables ask for them.

A request has a server span; what an engine does for it is a client span below, by the GenAI semantic
conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/), over all tries. The SDK is an optional
extra (``yibu[otel]``) and is imported in ``start`` alone. Prompts and answers stand in a span only where
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says so.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from yibu.accounts.usage import Tokens
from yibu.errors import RequestError
from yibu.gateway.monitoring.messages import input_messages, output_messages
from yibu.routing import Route

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

Headers = list[tuple[bytes, bytes]]

_log = logging.getLogger(__name__)

_FLUSH = 5.0
"""Seconds to send remaining spans when the node stops."""

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(rb"[\x20-\x7e]{1,512}")

_OPERATIONS = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
"""``gen_ai.operation.name`` by the kind of an operation; others keep their own."""

_SETTINGS = {
    "frequency_penalty": "frequency_penalty",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_tokens": "max_tokens",
    "n": "choice.count",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
"""Fields of requests and their ``gen_ai.request.`` attributes."""


class TracedExchange(Protocol):
    """What a span needs of a request (``yibu.gateway.http.exchange``)."""

    scope: Any
    method: str
    path: str
    label: str
    status: int
    failed: bool
    stream: bool
    started: float
    first_byte: float
    key: str
    replica: str
    request_id: bytes
    tokens: Tokens | None


class Reader(Protocol):
    """Collects an answer from the events of its stream (``answers.collect``)."""

    def feed(self, data: bytes) -> None: ...

    def answer(self) -> dict[str, Any]: ...


def asked(env: Mapping[str, str]) -> bool:
    """Whether the OTEL_* variables ask for traces."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = _exporters(env)
    if "OTEL_TRACES_EXPORTER" in env:
        return bool(exporters)
    return bool(
        env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def lacking(env: Mapping[str, str]) -> str | None:
    """The warning where traces are asked for without their packages; None where all is well."""
    if not asked(env) or _installed():
        return None
    return (
        "OTEL_* asks for traces, and the packages for them are not installed: there will be none."
        f" Type: {sys.executable} -m pip install 'yibu[otel]'"
    )


def _installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The client's trace context for the engine, unchanged; empty where it is not valid."""
    found = [(name, value) for name, value in headers if name in (b"traceparent", b"tracestate")]
    parents = [value for name, value in found if name == b"traceparent"]
    if len(parents) != 1 or _TRACEPARENT.fullmatch(parents[0]) is None:
        return []
    state = b",".join(value for name, value in found if name == b"tracestate")
    states = [(b"tracestate", state)] if _TRACESTATE.fullmatch(state) else []
    return [(b"traceparent", parents[0]), *states]


def start(env: Mapping[str, str], version: str) -> Tracing | None:
    """Tracing as the variables say; None where they ask for none, or it cannot be had, which is
    logged: a node without traces is better than none."""
    if (note := lacking(env)) is not None:
        _log.warning("%s", note)
    if note is not None or not asked(env):
        return None
    try:
        return Tracing(_provider(env, version), env)
    except Exception as error:  # noqa: BLE001  (whatever the SDK makes of odd settings, models are served)
        _log.warning("there are no traces: the OTEL_* variables cannot be used: %s", error)
        return None


def _exporters(env: Mapping[str, str]) -> list[str]:
    names = (name.strip() for name in env.get("OTEL_TRACES_EXPORTER", "otlp").split(","))
    return [name for name in names if name and name != "none"]


def _provider(env: Mapping[str, str], version: str) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in env or "service.name=" in env.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {"service.version": version} | ({} if named else {"service.name": "yibu"})
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    for name in _exporters(env):
        provider.add_span_processor(BatchSpanProcessor(_exporter(name, env)))
    return provider


def _exporter(name: str, env: Mapping[str, str]) -> SpanExporter:
    """Raises ValueError where no installed package has it."""
    from importlib.metadata import entry_points

    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)  # the node's log: its stdout is not for spans
    entry = name
    if name == "otlp":
        protocol = env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or env.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
        )
        entry = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}.get(protocol, "")
        name = f"otlp by {protocol}"
    found = list(entry_points(group="opentelemetry_traces_exporter", name=entry))
    if not found:
        raise ValueError(
            f"no package for the exporter {name!r} is installed; yibu[otel] brings http/protobuf, and "
            "pip install opentelemetry-exporter-otlp-proto-grpc brings grpc"
        )
    exporter: SpanExporter = found[0].load()()
    return exporter


class Tracing:
    """Begins traces of requests; ``close`` sends the rest."""

    def __init__(self, provider: TracerProvider, env: Mapping[str, str]) -> None:
        from opentelemetry.propagate import get_global_textmap

        self._provider = provider
        self.tracer: Tracer = provider.get_tracer("yibu")
        self.propagator: TextMapPropagator = get_global_textmap()
        self._fields = {field.encode() for field in self.propagator.fields}
        content = env.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").strip().lower()
        self.content = content in {"true", "span_only", "span_and_event"}

    def begin(self, exchange: TracedExchange) -> Trace:
        """Begin the trace of a new request, as a part of the client's where it has one."""
        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in exchange.scope["headers"]
            if name in self._fields
        }
        return Trace(self, exchange, self.propagator.extract(carrier) if carrier else None)

    def close(self) -> None:
        """Send the remaining spans. Blocks for ``_FLUSH`` seconds at most, and the SDK's own end."""
        self._provider.force_flush(int(_FLUSH * 1000))
        self._provider.shutdown()


class Trace:
    """The spans of one request."""

    def __init__(self, tracing: Tracing, exchange: TracedExchange, parent: Any) -> None:
        from opentelemetry.trace import SpanKind

        self._tracing = tracing
        self._exchange = exchange
        self._server = tracing.tracer.start_span(exchange.method, parent, SpanKind.SERVER)
        self._inner: Span = self._server
        self._reader: Reader | None = None
        self._whole: bytes | None = None
        self.recording = self._server.is_recording()
        """Whether it is recorded: a sampler may have dropped it."""

    @property
    def id(self) -> str:
        """The trace id, for the log."""
        return f"{self._server.get_span_context().trace_id:032x}"

    def headers(self) -> Headers:
        """The trace context for an engine: its spans become children of the innermost one here."""
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._tracing.propagator.inject(carrier, set_span_in_context(self._inner))
        return [(name.encode(), value.encode("latin-1")) for name, value in carrier.items()]

    @contextmanager
    def call(
        self, kind: str, route: Route, model: str, body: Mapping[str, Any], reader: Reader | None
    ) -> Iterator[None]:
        """The span of the engine's work for the request, with all tries. ``reader`` collects a stream's
        answer, if given."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        operation = _OPERATIONS.get(kind, kind)
        span = self._tracing.tracer.start_span(
            f"{operation} {model}", set_span_in_context(self._server), SpanKind.CLIENT
        )
        self._inner = span
        if self.recording:
            self._reader = reader
            span.set_attributes(_request_attributes(operation, model, route, body))
            if self._tracing.content:
                _set_json(span, "gen_ai.input.messages", input_messages(body))
        try:
            yield
        except BaseException as error:  # whatever ends the span is written on it
            _mark(span, error)
            raise
        finally:
            if self.recording:
                self._answered(span)
                span.set_attributes(self._usage())
            self._inner = self._server
            span.end()

    def retried(self, replica: str) -> None:
        """Note that the replica failed and another is asked."""
        self._inner.add_event("yibu.retry", {"yibu.replica": replica})

    def sent(self, data: bytes) -> None:
        """Note a part of the answer, as sent to the client."""
        if self._reader is None:
            return
        try:
            if self._exchange.stream:
                self._reader.feed(data)
            else:
                self._whole = (
                    data if self._whole is None else b""
                )  # whole answers come in one piece
        except (KeyError, TypeError, ValueError):
            self._reader = (
                None  # an event of a form of its own: its reader's business, not a trace's
            )

    def _answered(self, span: Span) -> None:
        import orjson

        if self._reader is None:
            return
        try:
            answer = orjson.loads(self._whole) if self._whole else self._reader.answer()
        except ValueError:
            return
        choices = [choice for choice in answer.get("choices") or () if isinstance(choice, dict)]
        if reasons := [str(choice.get("finish_reason") or "") for choice in choices]:
            span.set_attribute("gen_ai.response.finish_reasons", reasons)
        for name in ("id", "model"):
            if isinstance(value := answer.get(name), str):
                span.set_attribute(f"gen_ai.response.{name}", value)
        if self._tracing.content:
            _set_json(span, "gen_ai.output.messages", output_messages(choices))

    def end(self, *, gone: bool) -> None:
        """End the spans; ``gone``: the client left."""
        from opentelemetry.trace import StatusCode

        exchange, span = self._exchange, self._server
        if self.recording:
            span.update_name(f"{exchange.method} {exchange.label}")
            attributes: dict[str, Any] = {
                "http.request.method": exchange.method,
                "http.route": exchange.label,
                "url.path": exchange.path[:200],
                "url.scheme": "http",
                "yibu.key.name": exchange.key,
                "yibu.request.id": exchange.request_id.decode(),
            }
            if gone:
                attributes["error.type"] = "client_gone"
            else:
                attributes["http.response.status_code"] = exchange.status
            if exchange.failed or exchange.status >= 500:
                span.set_status(StatusCode.ERROR)
                attributes["error.type"] = "stream" if exchange.failed else str(exchange.status)
            span.set_attributes(attributes)
        span.end()

    def _usage(self) -> dict[str, Any]:
        exchange = self._exchange
        found: dict[str, Any] = {"yibu.replica": exchange.replica}
        if exchange.tokens is not None:
            prompt, completion, cached, estimated = exchange.tokens
            found["gen_ai.usage.input_tokens"] = prompt
            found["gen_ai.usage.output_tokens"] = completion
            if cached:
                found["gen_ai.usage.cache_read.input_tokens"] = cached
            if estimated:
                found["yibu.usage.estimated"] = True
        if exchange.stream and exchange.first_byte:
            first = exchange.first_byte - exchange.started
            found["gen_ai.response.time_to_first_chunk"] = first
        return found


def _request_attributes(
    operation: str, model: str, route: Route, body: Mapping[str, Any]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": route.engine,
        "gen_ai.request.model": model,
    }
    for field, attribute in _SETTINGS.items():
        if isinstance(value := body.get(field), int | float):
            found[f"gen_ai.request.{attribute}"] = value
    stops = body.get("stop") or body.get("stop_sequences")
    if isinstance(stops, str | list):
        listed: Sequence[object] = [stops] if isinstance(stops, str) else stops
        found["gen_ai.request.stop_sequences"] = [str(stop) for stop in listed]
    if body.get("stream"):
        found["gen_ai.request.stream"] = True
    return found


def _mark(span: Span, error: BaseException) -> None:
    """The error's code, and no text: it may quote the request."""
    from opentelemetry.trace import StatusCode

    code = error.code if isinstance(error, RequestError) else type(error).__name__
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", code)


def _set_json(span: Span, name: str, messages: list[dict[str, Any]]) -> None:
    import orjson

    if messages:
        span.set_attribute(name, orjson.dumps(messages).decode())

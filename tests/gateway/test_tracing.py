"""Traces of requests, as the real SDK sends them to a collector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, url_attributes

from tests.support.collector import Collector
from yibu.gateway.monitoring import tracing

from .conftest import FakeBackend, Serve, chat
from .upstream import LLAMA_CHAT, Received, Upstream, answering, sending, streaming

PATH = "/v1/chat/completions"
CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CONVENTIONS = {
    value
    for module in (gen_ai_attributes, error_attributes, http_attributes, url_attributes)
    for name, value in vars(module).items()
    if isinstance(value, str) and name.isupper()
}


def chunk(choices: list[dict[str, Any]], **fields: Any) -> bytes:
    shell = {"id": "chatcmpl-1", "model": "inner", "object": "chat.completion.chunk", "created": 1}
    return json.dumps({"choices": choices, **shell, **fields}).encode()


def delta(finish: str | None = None, **said: str) -> bytes:
    return chunk([{"index": 0, "finish_reason": finish, "delta": said}])


DELTAS = (
    delta(role="assistant", content="He"),
    delta(content="llo"),
    delta("stop"),
    chunk([], usage={"completion_tokens": 2, "prompt_tokens": 31, "total_tokens": 33}),
    b"[DONE]",
)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


def sampled(received: Received) -> tuple[str, str, bool]:
    """Trace, parent and whether it is kept, of what an engine was sent."""
    _, trace, parent, flags = (received.header("traceparent") or "").split("-")
    return trace, parent, bool(int(flags, 16) & 1)


def begun() -> tracing.Tracing:
    found = tracing.start(os.environ, "1.2.3")
    assert found is not None
    return found


async def test_a_request_has_a_span_and_its_engine_one_below(
    serve: Serve, backend: FakeBackend, collector: Collector
) -> None:
    traces = begun()
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve(tracing=traces) as gateway:
            body = chat(temperature=0.5, max_tokens=7, stop=["x"])
            headers = {"traceparent": CLIENT, "tracestate": "vendor=1"}
            assert (await gateway.post(PATH, body, headers=headers))[0] == 200
            await gateway.http.get(gateway.url + "/metrics")
    traces.close()

    server, call = collector.named(f"POST {PATH}"), collector.named("chat m")
    assert len(collector.spans) == 2  # whoever scrapes has no traces
    assert (server.kind, call.kind) == ("SERVER", "CLIENT")
    assert server.trace == call.trace == CLIENT.split("-")[1]
    assert server.parent == CLIENT.split("-")[2]
    assert call.parent == server.id
    received = up.received[0]
    assert sampled(received) == (call.trace, call.id, True)
    assert received.header("tracestate") == "vendor=1"
    assert server.attributes["http.response.status_code"] == 200
    assert server.resource["service.name"] == "yibu"
    assert server.resource["service.version"] == "1.2.3"
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llama.cpp",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 31,
        "gen_ai.usage.output_tokens": 3,
        "yibu.replica": "m-0",
    }
    assert told.items() <= call.attributes.items()
    known = {name for span in collector.spans for name in span.attributes}
    assert {name for name in known if not name.startswith("yibu.")} <= CONVENTIONS
    # No word of what was said.
    assert not any(b"Hello" in body or b'"hi"' in body for body in collector.bodies)


@pytest.mark.parametrize("content", [False, True])
async def test_streams_tell_their_end_and_content_only_where_it_is_asked_for(
    serve: Serve,
    backend: FakeBackend,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    content: bool,
) -> None:
    if content:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    traces = begun()
    async with Upstream(streaming(*DELTAS)) as up:
        backend.add("m", up)
        async with serve(tracing=traces) as gateway:
            await gateway.stream(PATH, chat(stream=True))
    traces.close()
    call = collector.named("chat m").attributes
    assert call["gen_ai.request.stream"] is True
    assert call["gen_ai.response.finish_reasons"] == ["stop"]
    assert call["gen_ai.usage.output_tokens"] == 2
    assert call["gen_ai.response.time_to_first_chunk"] > 0
    if not content:
        assert "gen_ai.input.messages" not in call
        assert not any(b"llo" in body for body in collector.bodies)
        return
    assert json.loads(call["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "hi"}]}
    ]
    assert json.loads(call["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Hello"}],
            "finish_reason": "stop",
        }
    ]


async def test_failures_and_second_tries_are_marked(
    serve: Serve, backend: FakeBackend, collector: Collector
) -> None:
    traces = begun()
    async with Upstream(sending(close=True)) as broken, Upstream(answering(LLAMA_CHAT)) as well:
        backend.add("two", broken, well)
        backend.add("one", broken)
        async with serve(tracing=traces) as gateway:
            assert (await gateway.post(PATH, chat("two")))[0] == 200
            assert (await gateway.post(PATH, chat("one")))[0] == 502
            assert (await gateway.post(PATH, chat("none")))[0] == 404
    traces.close()
    assert collector.named("chat two").events == ["yibu.retry"]
    assert not collector.named("chat two").failed
    failed = collector.named("chat one")
    assert failed.failed
    assert failed.attributes["error.type"] == "engine_gone"
    statuses = [
        (span.attributes["http.response.status_code"], span.failed)
        for span in collector.spans
        if span.kind == "SERVER"
    ]
    # A client's own fault is no failure of the server's.
    assert sorted(statuses) == [(200, False), (404, False), (502, True)]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ([("traceparent", CLIENT), ("tracestate", "a=1")], CLIENT),
        ([("traceparent", CLIENT), ("traceparent", CLIENT)], None),
        ([("traceparent", "00-nothing")], None),
        ([("tracestate", "a=1")], None),
    ],
)
async def test_without_traces_a_clients_context_goes_on_to_the_engine(
    serve: Serve, backend: FakeBackend, given: list[tuple[str, str]], sent: str | None
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            assert (await gateway.post(PATH, chat(), headers=given))[0] == 200
    received = up.received[0]
    assert received.header("traceparent") == sent
    assert received.header("tracestate") == ("a=1" if sent else None)


async def test_a_sampler_that_takes_nothing_costs_no_span(
    serve: Serve, backend: FakeBackend, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    traces = begun()
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve(tracing=traces) as gateway:
            assert (await gateway.post(PATH, chat()))[0] == 200
    traces.close()
    assert collector.spans == []
    assert sampled(up.received[0])[2] is False


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
    ],
)
def test_when_traces_are_asked_for(env: dict[str, str], wanted: bool) -> None:
    assert tracing.asked(env) == wanted


@pytest.mark.parametrize("without", ["opentelemetry.sdk", "opentelemetry"])
def test_without_the_extra_it_is_said_what_to_type(without: str) -> None:
    words = (
        "import sys\n"
        f"sys.modules[{without!r}] = None\n"
        "from yibu.gateway.monitoring import tracing\n"
        "env = {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:4318'}\n"
        "print(tracing.lacking({}), tracing.lacking(env), tracing.start(env, '1'), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    none, said, started = done.stdout.splitlines()
    assert (none, started) == ("None", "None")
    assert said.endswith("-m pip install 'yibu[otel]'")
    assert "pip install 'yibu[otel]'" in done.stderr


def test_an_exporter_that_nobody_has_is_named(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert tracing.start(os.environ, "1") is None
    assert "otlp by grpc" in caplog.text

"""Engines that are nearly OpenAI-compatible: what clients get is, or it is an error.

Each case was met in a public bug report of some server. What a client must find is what OpenAI's own
SDK demands of an answer that it puts together.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import FakeBackend, Serve, chat
from .upstream import DONE, STREAM_HEAD, Upstream, answering, chunked, response, sending, streaming

PATH = "/v1/chat/completions"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
REASONS = ({"": "stop", None: "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop",
            "end_turn": "stop", "max_tokens": "length", "max_length": "length", "length": "length",
            "tool_call": "tool_calls", "tool_use": "tool_calls", "content_filter": "content_filter",
            "some new one": "stop"})  # fmt: skip
FAILURES = ("abort", "aborted", "cancelled", "error", "timeout")


def whole(**fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "ok"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], "usage": USAGE, **fields}


def choice(**fields: Any) -> list[dict[str, Any]]:
    return [{**whole()["choices"][0], **fields}]


def chunk(delta: Any, reason: str | None = None, **fields: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": choices, **fields}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"detail": "Not so"}, whole(choices=None), whole(choices=[]), whole(choices={}),
        whole(choices=["x"]), whole(choices=[{"index": 0}]), whole(choices=choice(message=None)),
        whole(choices=choice(message="ok")), whole(choices=choice(message={"content": 5})),
        whole(choices=choice(message={"content": [{"type": "image"}]})),
        whole(choices=choice(message={"content": {"text": "ok"}})),
        whole(choices=choice(index="zero")), *(whole(choices=choice(finish_reason=why)) for why in FAILURES),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_success_without_an_answer_is_an_error(
    serve: Serve, backend: FakeBackend, answer: dict[str, Any]
) -> None:
    async with Upstream(answering(answer)) as up, serve() as gateway:
        backend.add("m", up)
        status, body = await gateway.post(PATH, chat())
        assert status == 502
        assert body["error"]["code"] in {"engine_protocol_error", "engine_gone", "engine_error"}


async def test_a_whole_answer_has_the_types_of_the_specification(
    serve: Serve, backend: FakeBackend
) -> None:
    async with Upstream(answering({})) as up, serve() as gateway:
        backend.add("m", up)

        async def ask(*, status: str = "200 OK", **fields: Any) -> Any:
            up.behaviour = sending(response(json.dumps(whole(**fields)).encode(), status=status))
            code, body = await gateway.post(PATH, chat())
            assert code == 200, body
            return body

        for given, reason in REASONS.items():
            answer = await ask(choices=choice(finish_reason=given))
            assert answer["choices"][0]["finish_reason"] == reason, given
        parts = [{"type": "text", "text": "o"}, {"type": "text", "text": "k"}]
        answer = await ask(choices=choice(message={"content": parts}))
        assert answer["choices"][0]["message"]["content"] == "ok"
        for usage in (None, {}, {"prompt_tokens": "3"}, {**USAGE, "prompt_tokens": -1}, [], "5"):
            assert "usage" not in await ask(usage=usage)
        assert (await ask(usage={"prompt_tokens": 3}))["usage"]["total_tokens"] == 3
        assert (await ask(usage={**USAGE, "total_tokens": 9}))["usage"] == USAGE
        assert type((await ask(created=1.5))["created"]) is int
        assert type((await ask(created="now"))["created"]) is int
        assert (await ask(object="text_completion"))["object"] == "chat.completion"
        assert (await ask(choices=choice(index="0")))["choices"][0]["index"] == 0
        for status in ("201 Created", "202 Accepted", "206 Partial Content", "299 x"):
            await ask(status=status)


CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
STREAMS: dict[str, tuple[tuple[bytes, ...], str | None, str]] = {
    # The engine's events, the text that the client must have in the end, and why it ended.
    "no role": ((chunk({"content": "ok"}), chunk({}, "stop"), DONE), "ok", "stop"),
    "empty reasons": ((chunk({"content": "o"}, ""), chunk({"content": "k"}, ""), chunk({}, "stop"), DONE), "ok", "stop"),
    "other reasons": ((chunk({"content": "ok"}), chunk({}, "eos_token"), DONE), "ok", "stop"),
    "a call": ((chunk({"tool_calls": [CALL]}), chunk({}, "tool_call"), DONE), None, "tool_calls"),
    "no reason": ((chunk({"content": "ok"}), DONE), "ok", "stop"),
    "no reason, a call": ((chunk({"tool_calls": [CALL]}), DONE), None, "tool_calls"),
    "empty data": ((b"", chunk({"content": "ok"}), b"", b" ", chunk({}, "stop"), DONE), "ok", "stop"),
    "null delta": ((chunk({"content": "ok"}), chunk(None), chunk(None, "stop"), DONE), "ok", "stop"),
    "a message": ((json.dumps(whole()).encode(), DONE), "ok", "stop"),
    "content in parts": ((chunk({"content": [{"type": "text", "text": "ok"}]}), chunk({}, "stop"), DONE), "ok", "stop"),
    "a usage that is none": ((chunk({"content": "ok"}, usage={"prompt_tokens": -3}), chunk({}, "stop"), DONE), "ok", "stop"),
    "text as index": ((chunk({}, choices=[{"index": "0", "delta": {"content": "ok"}}]), chunk({}, "stop"), DONE), "ok", "stop"),
    "two bytes of a letter": ((chunk({"content": "易"}), chunk({}, "stop"), DONE), "易", "stop"),
}  # fmt: skip


@pytest.mark.parametrize("case", STREAMS)
async def test_a_stream_can_be_put_together(serve: Serve, backend: FakeBackend, case: str) -> None:
    import openai  # half a second for every other worker

    events, text, reason = STREAMS[case]
    async with Upstream(streaming(*events)) as up, serve() as gateway:
        backend.add("m", up)
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
        async with client, client.chat.completions.stream(**chat()) as stream:
            final = (await stream.get_final_completion()).choices[0]
        assert (final.message.content, final.finish_reason) == (text, reason)
        assert final.message.role == "assistant"
        if text is None:
            assert final.message.tool_calls is not None
            assert final.message.tool_calls[0].function.name == "f"
        # What the JavaScript SDK raises about: a first delta without a role, a choice without a reason.
        lines = (await gateway.stream(PATH, chat(stream=True))).split("\n\n")[:-2]
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        reasons = [part["choices"][0]["finish_reason"] for part in chunks]
        assert [why for why in reasons if why is not None] == [reason]


async def test_each_of_several_choices_has_a_role_and_a_reason(
    serve: Serve, backend: FakeBackend
) -> None:
    def part(index: int, reason: str | None = None) -> bytes:
        return chunk(
            {}, choices=[{"index": index, "delta": {"content": "x"}, "finish_reason": reason}]
        )

    events = (part(0), part(1), part(1), part(0), part(1, "stop"), DONE)
    async with Upstream(streaming(*events)) as up, serve() as gateway:
        backend.add("m", up)
        lines = (await gateway.stream(PATH, chat(stream=True, n=2))).split("\n\n")[:-2]
    found: dict[int, list[tuple[str | None, str | None]]] = {0: [], 1: []}
    for line in lines:
        one = json.loads(line[6:])["choices"][0]
        found[one["index"]].append((one["delta"].get("role"), one["finish_reason"]))
    for parts in found.values():
        assert [role for role, _ in parts if role] == ["assistant"]
        assert parts[0][0] == "assistant"
        assert parts[-1][1] == "stop"


@pytest.mark.parametrize(
    "event",
    [
        *(chunk({"content": "y"}, why) for why in FAILURES), b'{"detail":"boom"}', b"[]", b"hello",
        chunk({}, choices=[{"index": [], "delta": {}}]), chunk([1]), chunk("x"), chunk({"content": 5}),
        b"[done]",
    ],
)  # fmt: skip
async def test_an_event_that_is_none_ends_the_stream_in_an_error(
    serve: Serve, backend: FakeBackend, event: bytes
) -> None:
    events = [
        chunked(b"data: " + part + b"\n\n") for part in (chunk({"content": "x"}), event, DONE)
    ]
    behaviour = sending(STREAM_HEAD, events[0], 0.05, *events[1:], b"0\r\n\r\n")
    async with Upstream(behaviour) as up, serve() as gateway:
        backend.add("m", up)
        text = await gateway.stream(PATH, chat(stream=True))
    assert "[DONE]" not in text
    assert (
        json.loads(text.split("\n\n")[-2].removeprefix("data: "))["error"]["type"] == "server_error"
    )


async def test_an_engines_message_is_bounded(serve: Serve, backend: FakeBackend) -> None:
    error = {"error": {"message": "m" * 1_000_000, "type": "server_error"}}
    async with Upstream(answering(error, status="500 X")) as up, serve() as gateway:
        backend.add("m", up)
        _, body = await gateway.post(PATH, chat())
    assert len(body["error"]["message"]) < 10_000


async def test_log_probabilities_that_are_no_numbers(serve: Serve, backend: FakeBackend) -> None:
    """JSON has no minus infinity: SGLang writes null, where OpenAI's SDKs promise a number."""
    scored = [{"token": "ok", "logprob": None, "top_logprobs": [{"token": "a", "logprob": None}]}]
    async with Upstream(answering(whole(choices=choice(logprobs={"content": scored})))) as up:
        backend.add("m", up)
        async with serve() as gateway:
            _, answer = await gateway.post(PATH, chat(logprobs=True, top_logprobs=1))
    token = answer["choices"][0]["logprobs"]["content"][0]
    assert [(one["logprob"], one["bytes"]) for one in (token, *token["top_logprobs"])] == [
        (-9999.0, None)
    ] * 2


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [("424 x", "generation", 502), ("429 x", "overloaded", 429), ("422 x", "validation", 422),
     (None, "validation", 400), (None, "overloaded", 429), (None, "generation", 502)],
)  # fmt: skip
async def test_errors_of_tgi(
    serve: Serve, backend: FakeBackend, status: str | None, kind: str, told: int
) -> None:
    error = {"error": "no", "error_type": kind}
    failing = answering(error, status=status) if status else streaming(json.dumps(error).encode())
    async with Upstream(failing) as up, serve() as gateway:
        backend.add("m", up)
        answer = await gateway.post(PATH, chat(stream=status is None))
        assert (answer[0], answer[1]["error"]["message"]) == (told, "no")


async def test_a_limit_without_a_code_is_named_as_one(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering({"error": "busy"}, status="429 Busy")) as up, serve() as gateway:
        backend.add("m", up)
        _, body = await gateway.post(PATH, chat())
        assert body["error"]["code"] == "rate_limit_exceeded"

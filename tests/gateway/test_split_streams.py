"""What engines split over events, repeat or say after the end: clients get it whole and once, or an error."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from yibu.gateway.answers.surrogates import SurrogateJoiner

from .conftest import FakeBackend, Serve, chat
from .engine_words import MESSAGE_STREAM
from .test_odd_engines import PATH, USAGE, chunk, whole
from .upstream import DONE, STREAM_HEAD, Upstream, chunked, sending, streaming

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("get_weather", "get_weather_now", "f", "查天气")
]


def events_of(text: str) -> list[Any]:
    """The events of a stream that ends well."""
    *events, end = text.split("\n\n")[:-1]
    assert end == "data: [DONE]", text
    return [json.loads(event.removeprefix("data: ")) for event in events]


def call(name: Any = None, arguments: Any = None, **fields: Any) -> bytes:
    function = {"name": name, "arguments": arguments}
    given = {key: value for key, value in function.items() if value is not None}
    return chunk({"tool_calls": [{"index": 0, **fields, "function": given}]})


FIRST: dict[str, Any] = {"id": "a", "type": "function"}
CALLS: dict[str, tuple[tuple[bytes, ...], list[tuple[str, str]]]] = {
    # The engine's deltas; the calls that clients must have.
    "whole": ((call("f", "", **FIRST), call(None, '{"a":'), call(None, "1}")), [("f", '{"a":1}')]),
    "in two": ((call("get_", **FIRST), call("weather", "{}")), [("get_weather", "{}")]),
    "in letters": (
        (call("", "", **FIRST), *(call(letter, "") for letter in "get_weather"), call(None, "{}")),
        [("get_weather", "{}")],
    ),
    "in two, then arguments": (
        (call("get_wea", "", **FIRST), call("ther", ""), call("", "{"), call("", "}")),
        [("get_weather", "{}")],
    ),
    "in characters of several bytes": ((call("查", **FIRST), call("天气", "{}")), [("查天气", "{}")]),
    "the beginning of another": (
        (call("get_weather", "", **FIRST), call(None, "{}")), [("get_weather", "{}")]
    ),
    "the other": (
        (call("get_weather", "", **FIRST), call("_now"), call(None, "{}")), [("get_weather_now", "{}")]
    ),
    "growing": ((call("get_", **FIRST), call("get_weather", "{}")), [("get_weather", "{}")]),
    "repeated": (
        (call("f", "{", **FIRST), call("f", "}", **FIRST)), [("f", "{}")]
    ),
    "without an id": ((call("get_"), call("weather"), call(None, "{}")), [("get_weather", "{}")]),
    "without arguments": ((call("get_", **FIRST), call("weather")), [("get_weather", "{}")]),
    "without an index": (
        (
            chunk({"tool_calls": [{"function": {"name": "get_"}}]}),
            chunk({"tool_calls": [{"function": {"name": "weather"}}]}),
            chunk({"tool_calls": [{"function": {"arguments": "{}"}}]}),
        ),
        [("get_weather", "{}")],
    ),
    "two calls": (
        (
            call("get_", **FIRST), call("weather", "{}"),
            chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "f"}}]}),
            chunk({"tool_calls": [{"index": 1, "function": {"arguments": "[]"}}]}),
        ),
        [("get_weather", "{}"), ("f", "[]")],
    ),
    "no tool of the request": ((call("other", **FIRST), call(None, "{}")), [("other", "{}")]),
}  # fmt: skip


async def test_a_tools_name_comes_whole(serve: Serve, backend: FakeBackend) -> None:
    import openai

    async with Upstream(streaming(DONE)) as up, serve() as gateway:
        backend.add("m", up)
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
        async with client:
            for case, (deltas, calls) in CALLS.items():
                for end in ("tool_calls", "stop", None):
                    last = () if end is None else (chunk({}, end),)
                    up.behaviour = streaming(*deltas, *last, DONE)
                    chunks = events_of(await gateway.stream(PATH, chat(stream=True, tools=TOOLS)))
                    async with client.chat.completions.stream(**chat(tools=TOOLS)) as stream:
                        final = (await stream.get_final_completion()).choices[0]
                    assert final.finish_reason == "tool_calls", case
                    made = final.message.tool_calls or ()
                    found = [(one.function.name, one.function.arguments) for one in made]
                    assert found == calls, case
                    check_first_deltas(chunks, calls)


def check_first_deltas(chunks: list[Any], calls: list[tuple[str, str]]) -> None:
    """The first delta of a call has all of its fields, and no later one has them again."""
    first: dict[int, dict[str, Any]] = {}
    for one in chunks:
        for delta in one["choices"][0]["delta"].get("tool_calls", ()):
            assert delta["index"] not in first or not {"id", "type"} & delta.keys()
            first.setdefault(delta["index"], delta)
    names = [first[index]["function"]["name"] for index in sorted(first)]
    assert names == [name for name, _ in calls]
    assert all(delta["id"] and delta["type"] == "function" for delta in first.values())


def escaped(text: str, **delta: str) -> bytes:
    """A chunk whose text is written as it stands, escapes and all."""
    name = next(iter(delta), "content")
    return chunk({name: "@"}).replace(b'"@"', f'"{text}"'.encode())


HIGH, LOW = r"\ud83d", r"\uDE00"


TEXTS: list[tuple[list[str], str]] = [
    ([HIGH + LOW], "😀"),
    ([HIGH, LOW], "😀"),
    (["a" + HIGH, LOW + "b"], "a😀b"),
    (["a", "b" + HIGH, LOW, "c"], "ab😀c"),
    ([HIGH, "", LOW], "😀"),
    ([HIGH, LOW + HIGH, LOW], "😀😀"),
    ([HIGH, "b"], "\ufffdb"),
    ([LOW, "b"], "\ufffdb"),
    ([HIGH + HIGH, LOW], "\ufffd😀"),
    (["a", HIGH], "a"),
    ([r"\\ud83d", LOW], "\\ud83d\ufffd"),
    (["x", r"\u6613\u90e8", r"\t"], "x易部\t"),
]


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param("9" * 40, id="an integer beyond 64 bits"),
        pytest.param("9" * 5000, id="one that Python does not read"),
        pytest.param("[" * 300 + "]" * 300, id="what orjson reads and does not write"),
        pytest.param("[" * 100_000 + "]" * 100_000, id="nested deeper than any reads"),
        pytest.param("NaN", id="no JSON"),
    ],
)
def test_half_a_character_beside_what_cannot_be_written(beside: str) -> None:
    """Whoever parses the event has the last word on it; none of these is a fault of the gateway's own."""
    event = b'{"text":"a%b","x":%b}' % (HIGH.encode(), beside.encode())
    joined = SurrogateJoiner().join(event)
    assert joined == event or orjson.loads(joined)["text"] == "a"


async def test_a_character_in_two_events_is_one(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(streaming(DONE)) as up, serve() as gateway:
        backend.add("m", up)
        for field in ("content", "reasoning_content"):
            for texts, expected in TEXTS:
                events = [escaped(text, **{field: ""}) for text in ("s", "t", *texts)]
                framed = [b"data: %b\n\n" % event for event in (*events, chunk({}, "stop"), DONE)]
                # Each by itself and all at once: by the two ways that a chunk may take.
                for pieces in (framed, [b"".join(framed)]):
                    up.behaviour = sending(STREAM_HEAD, *map(chunked, pieces), b"0\r\n\r\n")
                    chunks = events_of(await gateway.stream(PATH, chat(stream=True)))
                    deltas = [one["choices"][0]["delta"] for one in chunks]
                    text = "".join(delta.get(field) or "" for delta in deltas)
                    assert text == "st" + expected
                    text.encode()


async def test_a_character_is_joined_within_its_own_choice_and_call(
    serve: Serve, backend: FakeBackend
) -> None:
    import openai

    def part(index: int, text: str) -> bytes:
        choices = [{"index": index, "delta": {"content": "@"}, "finish_reason": None}]
        return chunk({}, choices=choices).replace(b'"@"', f'"{text}"'.encode())

    events = [part(0, HIGH), part(1, r"\ud83c"), part(0, LOW), part(1, r"\udf0d")]
    events += [
        chunk({}, choices=[{"index": n, "delta": {}, "finish_reason": "stop"}]) for n in (0, 1)
    ]
    async with Upstream(streaming(*events, DONE)) as up, serve() as gateway:
        backend.add("m", up)
        lines = (await gateway.stream(PATH, chat(stream=True, n=2))).split("\n\n")[:-2]
        texts = ["", ""]
        for line in lines:
            one = json.loads(line[6:])["choices"][0]
            texts[one["index"]] += one["delta"].get("content") or ""
        assert texts == ["😀", "🌍"]
        arguments = [r"{\"a\":\"" + HIGH, LOW + r"\"}"]
        events = [
            call("f", "", **FIRST),
            *(call(None, "@").replace(b'"@"', f'"{a}"'.encode()) for a in arguments),
        ]
        up.behaviour = streaming(*events, chunk({}, "tool_calls"), DONE)
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
        async with client, client.chat.completions.stream(**chat(tools=TOOLS)) as stream:
            message = (await stream.get_final_completion()).choices[0].message
        assert message.tool_calls is not None
        assert json.loads(message.tool_calls[0].function.arguments) == {"a": "😀"}


async def test_half_a_character_in_a_whole_answer(serve: Serve, backend: FakeBackend) -> None:
    data = json.dumps(whole()).replace('"ok"', rf'"a{HIGH} {HIGH}{LOW}{LOW}{HIGH}"').encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    async with Upstream(sending(head % len(data) + data)) as up, serve() as gateway:
        backend.add("m", up)
        status, body = await gateway.post(PATH, chat())
    assert (status, body["choices"][0]["message"]["content"]) == (200, "a\ufffd 😀\ufffd")


@pytest.mark.parametrize(
    ("path", "kind", "events", "field"),
    [
        ("/v1/responses", "responses", ["response.output_text.delta"], "delta"),
        ("/v1/messages", "messages", ["content_block_delta"], "text"),
    ],
)
async def test_a_character_in_two_events_of_the_other_apis(
    serve: Serve, backend: FakeBackend, path: str, kind: str, events: list[str], field: str
) -> None:
    body: dict[str, Any] = {"model": "m", "stream": True}
    if kind == "responses":
        opening: list[Any] = []
        parts = [{"type": events[0], "item_id": "msg_1", "delta": "@"}] * 2
        last = {"type": "response.completed", "response": {"status": "completed", "output": []}}
        body["input"] = "hi"
    else:
        parts = [{"type": events[0], "index": 0, "delta": {"type": "text_delta", "text": "@"}}] * 2
        opening = [*MESSAGE_STREAM[:2]]
        last = {"type": "message_stop"}
        body |= {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    raw = [
        f"event: {part['type']}\ndata: {json.dumps(part)}\n\n".replace('"@"', f'"{half}"').encode()
        for part, half in zip(parts, (HIGH, LOW), strict=True)
    ]
    after = [MESSAGE_STREAM[4], last] if opening else [last]
    begin, end = (
        [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in part]
        for part in (opening, after)
    )
    raw = [*begin, *raw, *end, raw[0]]
    behaviour = sending(STREAM_HEAD, *map(chunked, raw), b"0\r\n\r\n")
    async with Upstream(behaviour) as up, serve() as gateway:
        backend.add("m", up, capabilities=frozenset({"chat", kind}))
        text = await gateway.stream(path, body)
    found = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
    deltas = [one["delta"] for one in found if one["type"] == events[0]]
    assert "".join(d if field == "delta" else d["text"] for d in deltas) == "😀"
    assert found[-1]["type"] == last["type"]  # and nothing behind it


def part(text: str, reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text} if text else {}, "finish_reason": reason}


GOES_ON = (
    chunk({"content": "x"}), chunk({"reasoning_content": "x"}), call("f", "{}", **FIRST),
    chunk({"content": "x"}, "stop"), chunk({"content": "x"}, usage=USAGE),
    chunk({}, choices=[part(""), part("x")]), chunk({"function_call": {"name": "f"}}),
)  # fmt: skip


async def test_a_choice_that_goes_on_after_its_end_is_an_error(
    serve: Serve, backend: FakeBackend
) -> None:
    first = chunk({"role": "assistant", "content": "a"})
    begun = [first, chunk({"content": "b"}), chunk({"content": "c"})]
    async with Upstream(streaming(DONE)) as up, serve() as gateway:
        for conforming in (False, True):
            backend.add("m", up, conforming=conforming)
            for late in GOES_ON:
                up.behaviour = streaming(*begun, chunk({}, "stop"), late, DONE, pause=0.01)
                text = await gateway.stream(PATH, chat(stream=True, tools=TOOLS))
                assert "[DONE]" not in text
                assert '"x"' not in text
                error = json.loads(text.split("\n\n")[-2].removeprefix("data: "))["error"]
                assert error["type"] == "server_error"


SAYS_NOTHING = (
    chunk({}), chunk({}, "stop"), chunk({"content": ""}, "stop"), chunk({}, "length"),
    chunk({"role": "assistant", "content": None}), chunk({"tool_calls": []}),
    chunk({}, "stop", usage=USAGE), chunk({}, usage=USAGE), chunk({}, choices=[], usage=USAGE),
    chunk({}, choices=[]),
)  # fmt: skip


async def test_what_says_nothing_after_the_end_is_left_out(
    serve: Serve, backend: FakeBackend
) -> None:
    async with Upstream(streaming(DONE)) as up, serve() as gateway:
        backend.add("m", up)
        for late in SAYS_NOTHING:
            up.behaviour = streaming(chunk({"content": "ok"}), chunk({}, "stop"), late, DONE)
            for asked in (False, True):
                body = chat(stream=True, stream_options={"include_usage": asked})
                chunks = events_of(await gateway.stream(PATH, body))
                reasons = [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]]
                assert [why for why in reasons if why] == ["stop"]
                usages = [one["usage"] for one in chunks if one.get("usage")]
                assert usages == ([USAGE] if asked and b'"usage"' in late else [])


async def test_a_choice_may_end_while_another_goes_on(serve: Serve, backend: FakeBackend) -> None:
    parts = [
        part("a"),
        part("b", index=1),
        part("", "stop"),
        part("c", index=1),
        part("", "length", 1),
    ]
    for conforming in (False, True):
        events = [chunk({}, choices=[one]) for one in parts]
        async with Upstream(streaming(*events, DONE, pause=0.01)) as up, serve() as gateway:
            backend.add("m", up, conforming=conforming)
            text = await gateway.stream(PATH, chat(stream=True, n=2))
        chunks = [json.loads(line[6:])["choices"][0] for line in text.split("\n\n")[:-2]]
        assert [one["delta"].get("content") for one in chunks] == ["a", "b", None, "c", None]


ROLES: tuple[dict[str, Any], ...] = (
    {"role": "assistant", "content": "x"}, {"content": "x", "role": "assistant"},
    {"content": "x", "role": "", "z": 1}, {"content": "x", "role": None}, {"content": "x"},
)  # fmt: skip


async def test_a_role_is_told_once(serve: Serve, backend: FakeBackend) -> None:
    import openai

    told = chunk({"content": '"role":"assistant", '})
    async with Upstream(streaming(DONE)) as up, serve() as gateway:
        backend.add("m", up)
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
        async with client:
            for delta in ROLES:
                last = chunk({**delta, "content": ""}, "stop")
                up.behaviour = streaming(*[chunk(delta)] * 4, told, last, DONE, pause=0.005)
                async with client.chat.completions.stream(**chat()) as stream:
                    message = (await stream.get_final_completion()).choices[0].message
                assert (message.role, message.content) == ("assistant", 'xxxx"role":"assistant", ')


async def test_a_stream_without_any_choice_is_an_error(serve: Serve, backend: FakeBackend) -> None:
    for events in ((DONE,), (b"", DONE), (chunk({}, choices=[]), DONE), (b"null", DONE)):
        async with Upstream(streaming(*events)) as up, serve() as gateway:
            backend.add("m", up)
            async with gateway.http.post(gateway.url + PATH, json=chat(stream=True)) as answer:
                text = await answer.text()
        assert "[DONE]" not in text
        assert '"server_error"' in text


async def test_usage_in_the_midst_is_told_at_the_end(serve: Serve, backend: FakeBackend) -> None:
    for early in (chunk({"content": "a"}, usage=USAGE), chunk({}, choices=[], usage=USAGE)):
        events = [chunk({"content": "o"}), early, chunk({"content": "k"}), chunk({}, "stop"), DONE]
        async with Upstream(streaming(*events)) as up, serve() as gateway:
            backend.add("m", up)
            body = chat(stream=True, stream_options={"include_usage": True})
            lines = (await gateway.stream(PATH, body)).split("\n\n")[:-2]
        chunks = [json.loads(line[6:]) for line in lines]
        assert [bool(one["usage"]) for one in chunks] == [False] * (len(chunks) - 1) + [True]
        assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], USAGE)

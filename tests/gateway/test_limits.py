"""Limits, models and usage of keys, over real sockets."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_args

import aiohttp
import orjson
import pytest

from tests.exposition import Exposition
from yibu.accounts.live import LiveAccounts
from yibu.accounts.store import AccountStore
from yibu.accounts.types import Account, TokenBudget
from yibu.config.types import Limits
from yibu.engines.base import Capability
from yibu.gateway.ollama.translation import TRANSLATIONS
from yibu.gateway.operations import OPERATIONS

from .conftest import SPEECH, FakeBackend, Running, Serve, chat
from .engine_words import MESSAGE_STREAM
from .upstream import (
    LLAMA_CHAT,
    LLAMA_CHAT_STREAM,
    LLAMA_USAGE,
    STREAM_HEAD,
    Upstream,
    answering,
    chunked,
    response,
    sending,
    streaming,
)

CHAT = "/v1/chat/completions"
Add = Callable[[Account], Any]


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[LiveAccounts]:
    live = LiveAccounts(tmp_path / "accounts.db")
    async with live.running():
        yield live


@pytest.fixture
def add(accounts: LiveAccounts) -> Add:
    """Add an account; the headers of its key."""

    async def added(account: Account) -> dict[str, str]:
        with AccountStore.open(accounts.path) as store:
            key = store.add(account)
        await accounts.sync()
        return {"authorization": f"Bearer {key}"}

    return added


def freeze(gateway: Running) -> None:
    """Let nothing refill, however long the test takes."""
    now = time.monotonic()
    gateway.app.accounting.clock = lambda: now


async def ask(gateway: Running, headers: dict[str, str], **fields: Any) -> tuple[int, Any, Any]:
    async with gateway.http.post(
        gateway.url + CHAT, json=chat(**fields), headers=headers
    ) as answer:
        return answer.status, json.loads(await answer.read()), answer.headers


async def test_requests_a_minute(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve(accounts=accounts) as gateway:
        freeze(gateway)
        backend.add("m", up)
        alice = await add(Account("alice", limits=Limits(rpm=2)))
        bob = await add(Account("bob"))
        for left in (1, 0):
            status, _, headers = await ask(gateway, alice)
            assert status == 200
            assert headers["x-ratelimit-limit-requests"] == "2"
            assert headers["x-ratelimit-remaining-requests"] == str(left)
            assert headers["x-ratelimit-reset-requests"]
            assert "x-ratelimit-limit-tokens" not in headers
        status, answer, headers = await ask(gateway, alice)
        assert status == 429
        assert answer["error"]["type"] == "rate_limit_error"
        assert answer["error"]["code"] == "rate_limit_exceeded"
        assert "'alice' may take 2 requests a minute" in answer["error"]["message"]
        assert headers["retry-after"] == "30"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        status, _, headers = await ask(gateway, bob)
        assert status == 200
        assert not any(name.lower().startswith("x-ratelimit") for name in headers)
        assert len(up.received) == 3


async def test_the_queue_is_told_who_asks_how_urgently_and_for_which_conversation(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up, replicas=2)
        alice = await add(Account("alice"))
        nightly = await add(Account("nightly", priority="batch"))
        first = {"role": "user", "content": "a long first message"}
        turns = [first, {"role": "assistant", "content": "t"}, {"role": "user", "content": "more"}]
        asked = []
        for headers, messages in ((alice, [first]), (alice, turns), (nightly, [first])):
            assert (await ask(gateway, headers, messages=messages))[0] == 200
            asked.append(backend.asked)
        assert [(one["key"], one["priority"]) for one in asked] == [
            ("alice", "interactive"), ("alice", "interactive"), ("nightly", "batch"),
        ]  # fmt: skip
        one, same, another = (each["affinity"] for each in asked)
        assert one is not None
        assert one == same != another


async def test_tokens_a_minute_are_those_of_the_engine(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve(accounts=accounts) as gateway:
        freeze(gateway)
        backend.add("m", up)
        alice = await add(Account("alice", limits=Limits(tpm=60)))
        for _ in range(2):  # of 34 tokens each
            assert (await ask(gateway, alice))[0] == 200
        status, answer, headers = await ask(gateway, alice)
        assert status == 429
        assert "60 tokens a minute" in answer["error"]["message"]
        assert headers["retry-after"] == "9"
        assert headers["x-ratelimit-remaining-tokens"] == "0"


async def test_requests_at_once(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    go_on = asyncio.Event()

    async def behave(request: Any, writer: Any) -> bool:
        await go_on.wait()
        return await answering(LLAMA_CHAT)(request, writer)

    async with Upstream(behave) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up)
        alice = await add(Account("alice", limits=Limits(concurrency=1)))
        first = asyncio.create_task(ask(gateway, alice))
        while not up.received:
            await asyncio.sleep(0.001)
        status, answer, headers = await ask(gateway, alice)
        assert (status, headers["retry-after"]) == (429, "1")
        assert "1 requests at once" in answer["error"]["message"]
        go_on.set()
        assert (await first)[0] == 200
        assert (await ask(gateway, alice))[0] == 200


async def test_a_spent_budget_is_not_worth_a_retry(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    import openai  # takes as long as all else that these tests import

    async with Upstream(answering(LLAMA_CHAT)) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up)
        alice = await add(Account("alice", budget=TokenBudget(30, "month")))
        client = openai.AsyncOpenAI(
            base_url=gateway.url + "/v1", api_key=alice["authorization"].split()[1]
        )
        async with client:
            raw = await client.chat.completions.with_raw_response.create(**chat())
            assert raw.parse().usage.total_tokens == 34
            assert raw.headers["x-ratelimit-limit-tokens"] == "30"
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(**chat())
        assert refused.value.code == "insufficient_quota"
        told = refused.value.response.headers
        assert told["x-should-retry"] == "false"
        assert told["x-ratelimit-remaining-tokens"] == "0"
        assert told["x-ratelimit-reset-tokens"].endswith("s")
        assert "x-ratelimit-limit-requests" not in told
        assert len(up.received) == 1
        async with gateway.http.get(gateway.url + "/v1/usage", headers=alice) as answer:
            budget = (await answer.json())["budget"]
        assert (budget["limit"], budget["used"], budget["period"]) == (30, 34, "month")


async def test_a_models_own_limits_hold_for_all(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve(accounts=accounts) as gateway:
        freeze(gateway)
        backend.add("m", up, limits=Limits(rpm=1))
        backend.add("free", up)
        alice, bob = await add(Account("alice")), await add(Account("bob"))
        assert (await ask(gateway, alice))[0] == 200
        status, answer, _ = await ask(gateway, bob)
        assert status == 429
        assert "The model 'm' may take 1 requests a minute" in answer["error"]["message"]
        assert (await ask(gateway, bob, model="free"))[0] == 200


async def test_models_that_are_not_allowed_do_not_exist(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve(accounts=accounts) as gateway:
        backend.add("open", up, names={"alias": "open", "adapter": "adapter"})
        backend.add("secret", up, names={"hidden": "secret", "tuned": "tuned"})
        alice = await add(Account("alice", models=("alias", "tuned", "not-here")))

        async def get(path: str) -> tuple[int, str]:
            async with gateway.http.get(gateway.url + path, headers=alice) as answer:
                return answer.status, await answer.text()

        listed = {model["id"] for model in json.loads((await get("/v1/models"))[1])["data"]}
        assert listed == {"open", "alias", "tuned"}
        for path in ("/v1/models", "/api/tags", "/api/ps", "/readyz", "/metrics"):
            status, text = await get(path)
            assert status == 200
            assert not any(name in text for name in ("secret", "hidden", "adapter")), path
        for name in ("secret", "hidden", "adapter"):
            status, answer, _ = await ask(gateway, alice, model=name)
            unknown = (await ask(gateway, alice, model="nonsense"))[1]
            assert status == 404
            assert (
                answer["error"]["message"].replace(name, "nonsense") == unknown["error"]["message"]
            )
            assert (await get(f"/v1/models/{name}"))[0] == 404
            for path, body in (("/api/chat", {"messages": []}), ("/api/show", {})):
                given = {"model": name, **body}
                async with gateway.http.post(
                    gateway.url + path, json=given, headers=alice
                ) as refused:
                    assert refused.status == 404, path
        for name in ("open", "alias", "tuned"):
            assert (await ask(gateway, alice, model=name))[0] == 200, name


@pytest.mark.parametrize("conforming", [False, True])
@pytest.mark.parametrize("asked", [False, True])
async def test_streams_are_counted_whether_the_client_asks_or_not(
    serve: Serve,
    backend: FakeBackend,
    accounts: LiveAccounts,
    add: Add,
    conforming: bool,
    asked: bool,
) -> None:
    events = (*LLAMA_CHAT_STREAM, LLAMA_USAGE, b"[DONE]")
    async with Upstream(streaming(*events)) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up, conforming=conforming)
        alice = await add(Account("alice"))
        options = {"stream_options": {"include_usage": True}} if asked else {}
        body = chat(stream=True, **options)
        async with gateway.http.post(gateway.url + CHAT, json=body, headers=alice) as answer:
            text = await answer.text()
        assert up.received[0].json["stream_options"] == {"include_usage": True}
        assert text.endswith("data: [DONE]\n\n")
        assert text.count('"completion_tokens"') == int(asked)
        if not asked:
            assert '"usage"' not in text
            assert '"choices":[]' not in text
        [row] = await accounts.usage("key", 0)
        assert (row["key"], row["requests"], row["estimated"]) == ("alice", 1, 0)
        assert (row["prompt_tokens"], row["completion_tokens"]) == (31, 2)
        assert row["compute_seconds"] >= 0


async def test_an_uncounted_stream_is_estimated_and_said_to_be(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    words = [LLAMA_CHAT_STREAM[1]] * 20
    events = (LLAMA_CHAT_STREAM[0], *words, LLAMA_CHAT_STREAM[3], b"[DONE]")
    async with Upstream(streaming(*events)) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up)
        alice = await add(Account("alice"))
        body = chat(stream=True)
        async with gateway.http.post(gateway.url + CHAT, json=body, headers=alice) as answer:
            await answer.read()
        [row] = await accounts.usage("key", 0)
    assert row["estimated"] == 1
    assert row["prompt_tokens"] > 0
    assert 10 <= row["completion_tokens"] <= 60


_SAID = "words " * 20
UNCOUNTED: dict[str, dict[str, Any]] = {
    CHAT: {"choices": [{"index": 0, "message": {"role": "assistant", "content": _SAID}}]},
    "/v1/completions": {"choices": [{"index": 0, "text": _SAID}]},
    "/v1/responses": {
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "id": "m", "status": "completed",
                    "content": [{"type": "output_text", "text": _SAID, "annotations": []}]}],
    },
    "/v1/messages": {"content": [{"type": "text", "text": _SAID}], "stop_reason": "end_turn"},
    "/v1/embeddings": {"data": [{"embedding": [0.5]}]},
    "/v1/rerank": {"results": [{"index": 0, "relevance_score": 0.5}]},
    "/v1/score": {"data": [{"index": 0, "score": 0.5}]},
    "/v1/messages/count_tokens": {"input_tokens": 1},
    "/tokenize": {"tokens": [1]},
    "/detokenize": {"prompt": "hi"},
}  # fmt: skip
"""Answers of engines that count nothing, by path: of all that take JSON."""
_WRITES = frozenset({CHAT, "/v1/completions", "/v1/responses", "/v1/messages"})
_FREE = frozenset({"/v1/messages/count_tokens", "/tokenize", "/detokenize"})
"""Paths whose answers are texts; and those that cost no tokens."""


@pytest.mark.parametrize("conforming", [False, True])
async def test_whatever_is_not_counted_is_estimated(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add, *, conforming: bool
) -> None:
    """Zeros that are filled in where a client looks for a number are nobody's count."""
    assert set(UNCOUNTED) == {path for path, operation in OPERATIONS.items() if operation.schema}
    async with serve(accounts=accounts) as gateway:
        for path, said in UNCOUNTED.items():
            async with Upstream(answering(said)) as up:
                everything = frozenset(get_args(Capability))
                backend.add(
                    "m", up, engine="command", capabilities=everything, conforming=conforming
                )
                key = await add(Account(path.replace("/", "-").strip("-")))
                body = SENT | {"model": "m"}
                async with gateway.http.post(gateway.url + path, json=body, headers=key) as answer:
                    assert answer.status == 200, (path, await answer.text())
        rows = {row["key"]: row for row in await accounts.usage("key", 0)}
    for path in UNCOUNTED:
        row = rows[path.replace("/", "-").strip("-")]
        assert row["estimated"] == (path not in _FREE), path
        assert (row["prompt_tokens"] > 0) == (path not in _FREE), path
        assert (row["completion_tokens"] == len(_SAID) // 4) == (path in _WRITES), path


def _with_parts(path: str, content: str) -> dict[str, Any]:
    """A prompt with everything that its API takes beside text."""
    url, text = f"data:image/png;base64,{content}", "what is this?"
    source = {"type": "base64", "media_type": "image/png", "data": content}
    picture = {"type": "image", "source": source}
    if path == CHAT:
        sound = {"type": "input_audio", "input_audio": {"data": content, "format": "wav"}}
        shown = {"type": "image_url", "image_url": {"url": url}}
        parts = [{"type": "text", "text": text}, shown, sound]
        return {"messages": [{"role": "user", "content": parts}]}
    if path == "/v1/responses":
        parts = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": url}]
        return {"input": [{"role": "user", "content": parts}]}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [picture]}
    return {"messages": [{"role": "user", "content": [picture, result]}], "max_tokens": 9}


@pytest.mark.parametrize("size", [40_000, 4_000_000], ids=["small", "heavy"])
@pytest.mark.parametrize("path", sorted(_WRITES - {"/v1/completions"}))
async def test_pictures_and_sound_are_not_estimated_by_their_bytes(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add, path: str, size: int
) -> None:
    """A budget of the day would be spent by one, as far as was known until the engine counted."""
    async with Upstream(answering(UNCOUNTED[path])) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up, engine="command", capabilities=frozenset(get_args(Capability)))
        key = await add(Account("alice", limits=Limits(tpm=1000)))
        body = {"model": "m", **_with_parts(path, "A" * size)}
        sent = io.BytesIO(orjson.dumps(body))
        headers = {**key, "content-type": "application/json"}
        async with gateway.http.post(gateway.url + path, data=sent, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 0
        [row] = await accounts.usage("key", 0)
    assert row["estimated"] == 1
    assert 0 < row["prompt_tokens"] < 500


async def test_an_uncounted_stream_of_messages_is_estimated(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    events = [dict(event) for event in MESSAGE_STREAM]
    for event in events:
        event.pop("usage", None)
        if "message" in event:
            event["message"] = {
                name: value for name, value in event["message"].items() if name != "usage"
            }
    async with (
        Upstream(streaming(*map(orjson.dumps, events))) as up,
        serve(accounts=accounts) as gateway,
    ):
        backend.add("m", up, capabilities=frozenset(get_args(Capability)))
        body = SENT | {"model": "m", "stream": True}
        key = await add(Account("alice"))
        async with gateway.http.post(
            gateway.url + "/v1/messages", json=body, headers=key
        ) as answer:
            await answer.read()
        [row] = await accounts.usage("key", 0)
    assert row["estimated"] == 1
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] > 0


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/embeddings"])
async def test_a_total_alone_is_the_prompts(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add, path: str
) -> None:
    said = UNCOUNTED[path] | {"usage": {"total_tokens": 9}}
    async with Upstream(answering(said)) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up, capabilities=frozenset(get_args(Capability)))
        key, body = await add(Account("alice")), SENT | {"model": "m"}
        async with gateway.http.post(gateway.url + path, json=body, headers=key) as answer:
            assert answer.status == 200
        [row] = await accounts.usage("key", 0)
    assert (row["prompt_tokens"], row["completion_tokens"], row["estimated"]) == (9, 0, 0)


async def test_who_leaves_a_stream_pays_for_what_came(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    async def behave(request: Any, writer: Any) -> bool:
        writer.write(STREAM_HEAD)
        for event in (LLAMA_CHAT_STREAM[0], *[LLAMA_CHAT_STREAM[1]] * 10):
            writer.write(chunked(b"data: " + event + b"\n\n"))
        await writer.drain()
        await request.disconnected.wait()
        return False

    async with Upstream(behave) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up)
        alice = await add(Account("alice", limits=Limits(concurrency=1)))
        body = chat(stream=True)
        async with gateway.http.post(gateway.url + CHAT, json=body, headers=alice) as answer:
            await answer.content.readany()
        caller = accounts.find(alice["authorization"].split()[1].encode())
        assert caller is not None
        assert caller.meter is not None
        async with asyncio.timeout(60):
            while caller.meter.in_flight:
                await asyncio.sleep(0.01)
        rows = await accounts.usage("key", 0)
        assert (rows[0]["requests"], rows[0]["errors"], rows[0]["estimated"]) == (1, 0, 1)
        assert rows[0]["prompt_tokens"] > 0


async def test_who_leaves_a_message_pays_for_what_came(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    """Its first event counts the prompt already; the answer is only counted at its end."""
    begun, opened, delta = MESSAGE_STREAM[:3]
    events = [begun, opened, *[delta] * 20]

    async def behave(request: Any, writer: Any) -> bool:
        writer.write(STREAM_HEAD)
        for event in events:
            name, data = event["type"].encode(), orjson.dumps(event)
            writer.write(chunked(b"event: " + name + b"\ndata: " + data + b"\n\n"))
        await writer.drain()
        await request.disconnected.wait()
        return False

    async with Upstream(behave) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up, capabilities=frozenset({"messages"}))
        alice = await add(Account("alice", budget=TokenBudget(10**6, "day")))
        body = {**chat(stream=True), "max_tokens": 500}
        path = gateway.url + "/v1/messages"
        async with gateway.http.post(path, json=body, headers=alice) as answer:
            text = b""
            while text.count(b"\n\n") < len(events):
                text += await answer.content.readany()
        async with asyncio.timeout(60):
            while not (rows := await accounts.usage("key", 0)):
                await asyncio.sleep(0.01)
        assert rows[0]["prompt_tokens"] == 33  # of them 32 from the cache
        assert rows[0]["completion_tokens"] >= 20
        assert rows[0]["estimated"] == 1


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 2**64 - 1, "completion_tokens": 1},
        {"prompt_tokens": 3, "completion_tokens": "many"},
        {"prompt_tokens": -(10**6), "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 3, "completion_tokens": 1, "cache_read_input_tokens": "x"},
        {"prompt_tokens": 3, "completion_tokens": 0.5},
        {"prompt_tokens": 3, "completion_tokens": [1]},
    ],
    ids=str,
)
async def test_an_engine_that_counts_nonsense_is_not_believed(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add, usage: dict[str, Any]
) -> None:
    async with (
        Upstream(answering({**LLAMA_CHAT, "usage": usage})) as up,
        serve(accounts=accounts) as gateway,
    ):
        backend.add("m", up)
        alice = await add(Account("alice"))
        for conforming in (False, True):
            backend.add("m", up, conforming=conforming)
            await ask(gateway, alice)
        [row] = await accounts.usage("key", 0)
        assert (row["requests"], row["estimated"]) == (2, 2)
        assert 0 < row["total_tokens"] < 10_000
        assert (await ask(gateway, await add(Account("bob"))))[0] == 200


async def test_a_prompt_sets_no_more_aside_than_fits_the_model(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve(accounts=accounts) as gateway:
        freeze(gateway)
        backend.add("m", up, max_context=500)
        alice = await add(Account("alice", limits=Limits(tpm=1000)))
        book = [{"role": "user", "content": "A" * 80_000}]
        status, _, headers = await ask(gateway, alice, messages=book)
        assert (status, headers["x-ratelimit-remaining-tokens"]) == (200, "500")
        assert (await ask(gateway, alice))[0] == 200


async def test_an_adapter_does_not_tell_of_its_model(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    """A key may use the adapter and not what it is made for."""
    told = {"tokenizer_class": "x", "name_or_path": "/models/secret"}
    async with Upstream(answering(told)) as up, serve(accounts=accounts) as gateway:
        able = frozenset({"chat", "tokenizer_info"})
        backend.add("secret", up, names={"tuned": "tuned"}, capabilities=able)
        alice = await add(Account("alice", models=("tuned",)))
        bob = await add(Account("bob"))

        async def get(path: str, headers: dict[str, str]) -> tuple[int, str]:
            async with gateway.http.get(gateway.url + path, headers=headers) as answer:
                return answer.status, await answer.text()

        for path in (
            "/v1/models",
            "/v1/models/tuned",
            "/tokenizer_info",
            "/tokenizer_info?model=tuned",
        ):
            status, text = await get(path, alice)
            assert (status, "secret" in text) == (200, False), path
        assert json.loads((await get("/v1/models/tuned", bob))[1])["parent"] == "secret"


async def test_limits_hold_on_every_path_that_an_engine_answers(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    """Loading a model in Ollama's way, and asking for its tokenizer."""
    async with (
        Upstream(answering({"tokenizer_class": "x"})) as up,
        serve(accounts=accounts) as gateway,
    ):
        freeze(gateway)
        backend.add("m", up, capabilities=frozenset({"chat", "tokenizer_info"}))
        backend.add("closed", up, limits=Limits(rpm=1))
        for name, method, path, body in (
            ("alice", "POST", "/api/generate", {"model": "m:latest"}),
            ("bob", "POST", "/api/chat", {"model": "m", "messages": []}),
            ("carol", "GET", "/tokenizer_info?model=m", None),
            ("dave", "HEAD", "/tokenizer_info", None),
        ):
            headers = await add(Account(name, limits=Limits(rpm=1)))
            statuses = []
            for _ in range(2):
                async with gateway.http.request(
                    method, gateway.url + path, json=body, headers=headers
                ) as answer:
                    statuses.append(answer.status)
                    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
            assert statuses == [200, 429], path
            [row] = await accounts.usage("model", 0, name)
            assert (row["model"], row["requests"], row["errors"]) == ("m", 2, 1)


async def test_usage_is_the_callers_own_and_all_of_it_an_administrators(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    served = serve(accounts=accounts, keys=["configured-key"])
    async with Upstream(answering(LLAMA_CHAT)) as up, served as gateway:
        backend.add("m", up)
        alice, bob = await add(Account("alice")), await add(Account("bob"))
        boss = await add(Account("boss", admin=True))
        configured = {"authorization": "Bearer configured-key"}
        for headers in (alice, alice, bob, configured):
            assert (await ask(gateway, headers))[0] == 200
        await ask(gateway, bob, model="nonsense")
        assert (await ask(gateway, bob, temperature="hot"))[0] == 400

        async def get(path: str, headers: dict[str, str]) -> tuple[int, Any]:
            async with gateway.http.get(gateway.url + path, headers=headers) as answer:
                return answer.status, json.loads(await answer.read())

        status, own = await get("/v1/usage", alice)
        assert (status, own["key"], own["by"]) == (200, "alice", "model")
        [row] = own["data"]
        assert (row["group"], row["requests"], row["total_tokens"]) == ("m", 2, 68)
        assert (await get("/v1/usage?by=key", alice))[0] == 400
        assert (await get("/v1/usage?since=soon", alice))[0] == 400
        for headers in (alice, configured):
            assert (await get("/v1/admin/usage", headers))[0] == 401
        status, every = await get("/v1/admin/usage", boss)
        assert status == 200
        counted = {row["group"]: row["requests"] for row in every["data"]}
        assert counted["alice"] == 2
        assert counted["bob"] == 1
        assert len(counted) == 3  # the configured key, by its digest
        assert (await get("/v1/admin/usage?key=bob&by=day", boss))[1]["key"] == "bob"


async def test_usage_has_the_tokens_that_an_engine_had_cached(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    usage = {**LLAMA_CHAT["usage"], "prompt_tokens_details": {"cached_tokens": 24}}
    cached = answering({**LLAMA_CHAT, "usage": usage})
    async with Upstream(cached) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up)
        alice = await add(Account("alice"))
        for _ in range(2):
            assert (await ask(gateway, alice))[0] == 200
        [row] = await accounts.usage("model", 0, "alice")
        assert (row["prompt_tokens"], row["cached_tokens"]) == (62, 48)


@pytest.mark.parametrize(
    "answer",
    [
        response(b'{"text":"hi","usage":{"type":"duration","seconds":2.5}}'),
        response(b'{"text":"hi"}', kind="application/json\r\nx-audio-seconds: 2.5"),
        response(b"hi", kind="text/plain\r\nx-audio-seconds: 2.5"),
        STREAM_HEAD
        + chunked(
            b'data: {"type":"transcript.text.done","text":"hi",'
            b'"usage":{"type":"duration","seconds":2.5}}\n\n'
        )
        + b"0\r\n\r\n",
    ],
    ids=["usage", "header", "text", "stream"],
)
async def test_usage_has_the_seconds_of_a_transcript(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add, answer: bytes
) -> None:
    async with Upstream(sending(answer)) as up, serve(accounts=accounts) as gateway:
        backend.add("ears", up, capabilities=SPEECH)
        alice = await add(Account("alice"))
        for _ in range(2):
            data = aiohttp.FormData({"model": "ears"})
            data.add_field("file", b"RIFF", filename="a.wav")
            url = gateway.url + "/v1/audio/transcriptions"
            async with gateway.http.post(url, data=data, headers=alice) as heard:
                assert heard.status == 200
                await heard.read()
        [row] = await accounts.usage("model", 0, "alice")
        assert (row["requests"], row["audio_seconds"]) == (2, 5.0)


async def test_metrics_have_the_keys_name_and_show_others_to_operators_alone(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up)
        alice, bob = await add(Account("alice")), await add(Account("bob"))
        boss = await add(Account("boss", admin=True))
        assert (await ask(gateway, alice))[0] == (await ask(gateway, bob))[0] == 200

        async def page(headers: dict[str, str]) -> Exposition:
            async with gateway.http.get(gateway.url + "/metrics", headers=headers) as answer:
                return Exposition(await answer.text())

        own, whole = await page(alice), await page(boss)
        labels = {"model": "m", "path": CHAT, "status": "200"}
        assert whole.value("yibu_requests_total", **labels, key="alice") == 1
        assert whole.value("yibu_requests_total", **labels, key="bob") == 1
        assert own.value("yibu_requests_total", **labels, key="alice") == 1
        assert own.value("yibu_tokens_total", model="m", direction="prompt", key="alice") == 31
        assert "bob" not in own.text
        assert "yibu_models" not in own.text


async def test_no_path_tells_of_a_model_that_is_not_allowed(
    serve: Serve, backend: FakeBackend, accounts: LiveAccounts, add: Add
) -> None:
    backend.add("secret", capabilities=frozenset(get_args(Capability)))
    async with serve(accounts=accounts) as gateway:
        alice = await add(Account("alice", models=("mine",)))
        paths = [
            *((route.path, method) for route in gateway.app.surface().routes  # type: ignore[attr-defined]
              for method in route.methods),  # type: ignore[attr-defined]
            *((path, "POST") for path in (*OPERATIONS, *TRANSLATIONS)),
        ]  # fmt: skip
        for path, method in paths:
            if path.startswith(("/static", "/console")):  # the console asks no model of anybody
                continue
            url = gateway.url + path.replace("{model:path}", "secret")
            for given in ({}, {"params": {"model": "secret"}}):
                bodies: list[dict[str, Any]] = [{}]
                if (
                    method == "POST"
                    and OPERATIONS.get(path, OPERATIONS["/tokenize"]).schema is None
                ):
                    form = aiohttp.FormData(
                        {"model": "secret", "file": "x"}, default_to_multipart=True
                    )
                    bodies = [{"data": form}]
                elif method == "POST":
                    bodies = [{"json": SENT | {"model": "secret"}}]
                for body in bodies:
                    async with gateway.http.request(
                        method, url, headers=alice, **given, **body
                    ) as answer:
                        text = await answer.text()
                    named = "secret" in text.replace("no model 'secret'", "")
                    assert not named, (method, path, text)
                    if method == "POST":
                        assert answer.status == 404, (path, text)


SENT = {
    "messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi", "max_tokens": 1,
    "query": "hi", "documents": ["hi"], "text_1": "hi", "text_2": "hi", "tokens": [1],
}  # fmt: skip
"""What some path needs; others pass over it."""

"""Settings of the gateway that change while it serves: each holds at once, and no request is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.e2e.home import Home, fake, live_fake
from tests.e2e.test_console import Page
from tests.support.counting import Count, ask_on
from tests.support.polling import eventually, until
from tests.support.ports import free_port
from yibu.config.schema import GatewaySchema
from yibu.config.settings import APPLIED
from yibu.errors import NotRunningError

KEY, OTHER = "a-key-that-came-later", "a-key-of-the-file-1"
ORIGIN = "https://app.example"


@dataclass
class Asker:
    """Requests, each on a connection of its own."""

    home: Home
    url: str
    http: aiohttp.ClientSession

    async def get(self, key: str | None = None, **headers: str) -> aiohttp.ClientResponse:
        if key:
            headers["authorization"] = f"Bearer {key}"
        async with self.http.get(f"{self.url}/v1/models", headers=headers) as answer:
            await answer.read()
            return answer

    async def chat(self, model: str = "fake", words: int = 1) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "word " * words}]}
        async with self.http.post(f"{self.url}/v1/chat/completions", json=body) as answer:
            await answer.read()
            return answer.status

    async def upload(self) -> int:
        form = aiohttp.FormData({"model": "ears"})
        form.add_field("file", b"x" * 5000, filename="a.wav")
        async with self.http.post(f"{self.url}/v1/audio/transcriptions", data=form) as answer:
            await answer.read()
            return answer.status

    async def session(self, *said: str) -> tuple[list[str], int | None]:
        """What a live session is told after these words, and the code that it is closed with."""
        address = f"{self.url}/v1/realtime?intent=transcription"
        told: list[str] = []
        async with self.http.ws_connect(address) as socket:
            for text in said:
                await socket.send_str(text)
            async for message in socket:
                told.append(
                    json.loads(message.data)["error"]["code"]
                    if "{" in message.data
                    else message.data
                )
                if message.data == "told":
                    break
            return told, socket.close_code

    async def form_of_the_log(self) -> str:
        """Of the line that a request of now has."""
        answer = await self.get()
        number = answer.headers["x-request-id"]
        log = self.home.root / "logs" / "node.log"

        def line() -> str | None:
            return next((one for one in log.read_text().splitlines() if number in one), None)

        return "json" if (await eventually(line, "the request's line"))[0] == "{" else "text"


async def keys_work(ask: Asker) -> list[int]:
    return [(await ask.get(key)).status for key in (None, KEY, OTHER)]


async def is_let_in(ask: Asker) -> bool:
    return "access-control-allow-origin" in (await ask.get(origin=ORIGIN)).headers


async def is_called(ask: Asker) -> int:
    return (await ask.get(host="models.example")).status


async def silent(ask: Asker) -> int:
    return await ask.chat("silent")


UNSEEN = "seen only when it holds"
"""What the default does would take too long to wait for."""

Observe = Callable[[Asker], Awaitable[Any]]
LIVE: dict[str, tuple[Any, Observe, Any, Any]] = {
    "api_keys": ([KEY], keys_work, [200, 200, 200], [401, 200, 401]),
    "api_key_file": ("keys", keys_work, [200, 200, 200], [401, 401, 200]),
    "max_body": ("4KiB", lambda ask: ask.chat(words=2000), 200, 413),
    "max_upload": ("4KiB", lambda ask: ask.upload(), 200, 413),
    "cors_origins": ([ORIGIN], is_let_in, False, True),
    "hosts": (["models.example"], is_called, 403, 200),
    "request_timeout": (0.2, silent, UNSEEN, 504),
    "idle_timeout": (0.2, lambda ask: ask.session(), UNSEEN, (["session_idle"], 1001)),
    "max_live_audio": (2, lambda ask: ask.session("heard 3"), (["told"], None),
                       (["audio_limit_reached"], 1008)),
    "log_format": ("json", Asker.form_of_the_log, "text", "json"),
}  # fmt: skip
"""A value, what is seen of the setting, and what that is by default and with the value."""
APART = {"drain_timeout", "max_connections"}
"""Live too: tested by themselves, because they cost connections."""
ADDRESS = {"host", "port", "funasr_port"}


def test_every_setting_is_in_the_table_and_tested() -> None:
    assert set(APPLIED) == set(GatewaySchema.model_fields)
    live = {name for name, how in APPLIED.items() if how == "live"}
    assert live == set(LIVE) | APART
    assert {name for name, how in APPLIED.items() if how == "address"} == ADDRESS


@pytest.fixture
def served(home: Home) -> Home:
    (home.root / "keys").write_text(OTHER + "\n")
    (home.root / "keys").chmod(0o600)
    home.write(models(home))
    home.yibu("up", "-d")
    return home


def models(home: Home) -> list[dict[str, Any]]:
    held = fake("held", "--end-when", str(home.root / "gate"))
    return [fake(), held, fake("silent", "--hang-after", "1"), live_fake()]


@asynccontextmanager
async def asking(home: Home) -> AsyncIterator[Asker]:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(120)
    ) as http:
        yield Asker(home, home.url(), http)


@asynccontextmanager
async def held_stream(ask: Asker) -> AsyncIterator[asyncio.Task[bytes]]:
    """A stream that has begun, and ends after the block; the rest of what is read of it."""
    gate = ask.home.root / "gate"
    gate.unlink(missing_ok=True)
    key = {"x-api-key": ask.home.client.call("access")["key"]}
    body = {"model": "held", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    url = f"{ask.url}/v1/chat/completions"
    async with ask.http.post(url, json=body, headers=key) as answer:
        assert answer.status == 200
        assert await answer.content.readany()
        rest = asyncio.create_task(answer.read())
        try:
            yield rest
        finally:
            gate.touch()
            await asyncio.wait([rest])


async def apply(home: Home, **gateway: Any) -> str:
    home.write(models(home), **gateway)
    return (await asyncio.to_thread(home.yibu, "apply", "--yes")).stderr


async def test_every_setting_holds_at_once_and_no_request_is_lost(served: Home) -> None:
    count, key = Count(), served.client.call("access")["key"]
    port = int(served.url().rpartition(":")[2])
    async with asyncio.TaskGroup() as group, asking(served) as ask:
        for _ in range(2):
            group.create_task(ask_on(port, "fake", count, key=key))
        for name, (value, observe, by_default, with_it) in LIVE.items():
            if by_default is not UNSEEN:
                assert await observe(ask) == by_default, name
            async with held_stream(ask) as held:
                assert f"gateway.{name.replace('key_file', 'keys')}: " in await apply(
                    served, **{name: value}
                )
                assert await observe(ask) == with_it, name
                assert not held.done()
            assert held.result().endswith(b"data: [DONE]\n\n"), name
            assert "gateway." in await apply(served)
            answered = count.answered
            await eventually(lambda least=answered: count.answered > least + 10, "answers")
        count.stop = True
    assert not count.lost, count
    assert "Nothing is to be changed" in await apply(served)


async def test_fewer_connections_hold_at_once(served: Home) -> None:
    async with asking(served) as ask, held_stream(ask) as held:
        assert (await ask.get()).status == 200
        await apply(served, max_connections=1)
        assert (await ask.get()).status == 503
        assert not held.done()
        await apply(served)
        assert (await ask.get()).status == 200
    assert held.result().endswith(b"data: [DONE]\n\n")


async def test_a_shorter_drain_holds_at_once(served: Home) -> None:
    await apply(served, drain_timeout=600)
    async with asking(served) as ask, held_stream(ask) as held:
        await apply(served, drain_timeout=0.1)
        await asyncio.to_thread(served.yibu, "down")
        with pytest.raises(aiohttp.ClientError):
            await held


async def test_another_address_holds_at_once_and_open_connections_go_on(served: Home) -> None:
    old = served.url()
    async with asking(served) as ask, held_stream(ask) as held:
        number = int(old.rpartition(":")[2])
        for host in ("127.0.0.2", "0.0.0.0", "127.0.0.1"):
            told = await apply(served, host=host, port=number, api_keys=[KEY])
            assert f"→ {host}" in told
            name = "127.0.0.1" if host == "0.0.0.0" else host
            assert served.url() == f"http://{name}:{number}"
            assert await keys_work(Asker(served, served.url(), ask.http)) == [401, 200, 401]
        await apply(served, port=0, funasr_port=0)
        assert served.url() == old
        other = free_port()
        await apply(served, port=other, funasr_port=0)
        assert served.url() == f"http://127.0.0.1:{other}"
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask.get()
        assert await Asker(served, served.url(), ask.http).chat() == 200
        assert not held.done()
        assert len(listeners(served)) == 2
        await asyncio.to_thread(crash, served)
        assert served.url() == f"http://127.0.0.1:{other}"
        assert len(listeners(served)) == 2
    with suppress(aiohttp.ClientError):  # of the node that was killed
        held.result()


def listeners(home: Home) -> list[Any]:
    """Addresses at which the node's process listens."""
    process = psutil.Process(home.ps()["node"]["pid"])
    return [one.laddr for one in process.net_connections("tcp") if one.status == "LISTEN"]


def test_an_address_that_cannot_be_had_refuses_the_whole_file(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    before = home.client.call("configs")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        home.write([fake("fake", "--tokens", "9")], port=number, api_keys=[KEY])
        assert f"port {number}" in home.yibu("apply", "--yes", code=2).stderr
    assert home.client.call("configs") == before
    assert statuses(home, None) == [200]
    refused = home.yibu("up", "-d", code=2).stderr
    assert f"gateway.port: 0 → {number}" in refused
    assert "yibu apply -f" in refused
    home.yibu("apply", "--yes")
    assert home.url() == f"http://127.0.0.1:{number}"
    home.yibu("rollback", "--yes")
    assert home.client.call("configs")["settings"] == before["settings"]
    assert "yibu down && yibu up -d" in home.yibu("up", "-d", "--port", "1", "fake", code=2).stderr


@pytest.mark.parametrize(
    ("gateway", "said"),
    [
        ({"api_keys": ["short"]}, "API key number 1"),
        ({"api_key_file": "missing"}, "cannot be read"),
        ({"cors_origins": ["no origin"]}, "no origin"),
        ({"max_body": -1}, "max_body"),
        ({"no_such_setting": 1}, "unknown key"),
    ],
)
def test_what_cannot_be_used_is_refused_whole(
    gateway: dict[str, Any], said: str, home: Home
) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    before = home.client.call("configs")
    home.write([fake("fake", "--tokens", "9")], **gateway, hosts=["models.example"])
    for verb in (["diff"], ["apply", "--yes"], ["up", "-d"]):
        assert said in home.yibu(*verb, code=2).stderr, verb
    assert home.client.call("configs") == before


def statuses(home: Home, *keys: str | None) -> list[int]:
    """What requests with these keys are answered."""

    async def asked() -> list[int]:
        async with asking(home) as ask:
            return [(await ask.get(key)).status for key in keys]

    return asyncio.run(asked())


def texts_of(home: Home) -> list[str]:
    """What is kept on disk of what a node was told."""
    kept = [home.root / "state", home.root / "logs"]
    files = [path for folder in kept for path in folder.rglob("*") if path.is_file()]
    return [path.read_text(errors="replace") for path in files]


def test_a_removed_key_stays_refused_after_a_crash_and_an_upgrade(home: Home) -> None:
    home.write([fake()], api_keys=[KEY, OTHER])
    home.yibu("up", "-d")
    assert statuses(home, None, KEY, OTHER) == [401, 200, 200]
    home.write([fake()], api_keys=[OTHER], max_body="1MiB")
    told = home.yibu("diff").stdout
    assert "gateway.api_keys: 2 → 1 (0 added, 1 removed)" in told
    assert KEY not in told + home.yibu("diff", "--json").stdout
    home.yibu("apply", "--yes")
    assert statuses(home, None, KEY, OTHER) == [401, 401, 200]
    for way in (crash, lambda home: home.yibu("node", "upgrade")):
        way(home)
        assert statuses(home, None, KEY, OTHER) == [401, 401, 200]
        assert "Nothing is to be changed" in home.yibu("apply", "--yes").stderr
        assert home.client.call("settings")["settings"]["gateway"]["max_body"] == 2**20
    history = next(home.root.rglob("history.json"))
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert not [text for text in texts_of(home) if KEY in text or OTHER in text]

    told = home.yibu("rollback", "--yes").stderr
    assert "gateway.api_keys: 1 → 2 (1 added, 0 removed)" in told
    assert statuses(home, None, KEY, OTHER) == [401, 200, 200]
    crash(home)
    assert statuses(home, None, KEY, OTHER) == [401, 200, 200]
    assert home.client.call("settings")["settings"]["gateway"]["max_body"] == 32 * 2**20


def crash(home: Home) -> None:
    """Kill the node; its holder starts another."""
    before = home.ps()["node"]["pid"]
    os.kill(before, signal.SIGKILL)

    def another() -> bool:
        with suppress(NotRunningError):  # on a busy machine it takes longer than a command waits
            return bool(home.ps()["node"]["pid"] != before)
        return False

    until(another, "another node")


def test_a_rollback_opens_what_was_open(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    home.write([fake()], api_keys=[KEY])
    home.yibu("apply", "--yes")
    assert statuses(home, None, KEY) == [401, 200]
    home.yibu("rollback", "--yes")
    assert statuses(home, None, KEY) == [200, 200]
    assert "nothing to go back to" in home.yibu("rollback", "--yes", code=2).stderr.lower()


def test_up_takes_its_own_file_and_no_other(home: Home, tmp_path: Path) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    pid = home.ps()["node"]["pid"]
    home.write([fake()], api_keys=[KEY])
    said = home.yibu("up", "-d").stderr
    assert "gateway.api_keys: none → 1 (1 added, 0 removed)" in said
    assert KEY not in said
    assert statuses(home, None, KEY) == [401, 200]
    home.yibu("up", "-d", "fake")
    other = tmp_path / "other.yaml"
    other.write_text(
        json.dumps({"gateway": {"port": 0, "api_keys": [OTHER]}, "models": [fake("b")]})
    )
    refused = home.yibu("up", "-d", "-f", str(other), code=2).stderr
    assert f"yibu apply -f {other}" in refused
    assert statuses(home, KEY, OTHER) == [200, 401]
    home.yibu("apply", "--yes", "-f", str(other))
    assert statuses(home, KEY, OTHER) == [401, 200]
    assert "Nothing is to be changed" in home.yibu("apply", "--yes", "-f", str(other)).stderr
    assert home.ps()["node"]["pid"] == pid


def test_what_the_environment_gave_the_node_holds(home: Home) -> None:
    home.write([fake()])
    started = {**home.env, "YIBU_API_KEYS": KEY}
    home.yibu("up", "-d", env=started)
    assert "Nothing would change" in home.yibu("diff").stderr
    home.write([fake()], api_keys=[OTHER])
    home.yibu("apply", "--yes")
    assert statuses(home, None, KEY, OTHER) == [401, 200, 200]
    crash(home)
    assert statuses(home, None, KEY, OTHER) == [401, 200, 200]
    home.write([fake()])
    home.yibu("apply", "--yes")
    assert statuses(home, None, KEY, OTHER) == [401, 200, 401]


def test_up_with_another_environment_takes_no_key_away(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d", env={**home.env, "YIBU_API_KEYS": KEY})
    refused = home.yibu("up", "-d", env={**home.env, "YIBU_API_KEYS": OTHER}, code=2).stderr
    assert "gateway.api_keys: 1 → 1 (1 added, 1 removed)" in refused
    home.yibu("up", "-d", env={**home.env, "YIBU_API_KEYS": f"{KEY},{OTHER}"})
    assert statuses(home, None, KEY, OTHER) == [401, 200, 200]


def test_a_key_file_is_read_again(home: Home) -> None:
    file = home.root / "keys"
    file.write_text(f"{KEY}\n{OTHER}\n")
    file.chmod(0o600)
    home.write([fake()], api_key_file="keys")
    home.yibu("up", "-d")
    assert statuses(home, None, KEY, OTHER) == [401, 200, 200]
    file.write_text(f"{OTHER}\n")
    home.yibu("apply", "--yes")
    assert statuses(home, None, KEY, OTHER) == [401, 401, 200]
    file.unlink()
    crash(home)
    assert statuses(home, None, KEY, OTHER) == [401, 401, 200]
    assert "cannot be read" in home.yibu("apply", "--yes", code=2).stderr


def test_the_console_applies_the_same(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    page = Page(home, home.client.call("access")["key"])
    config = page.told("/config")
    text = json.dumps(
        {"gateway": {"port": 0, "api_keys": [KEY], "cors_origins": [ORIGIN]}, "models": [fake()]}
    )
    _, told = page.ask("POST", "/config/diff", {"text": text})
    assert told["settings"] == {
        "api_keys": {"from": "none", "to": "1 (1 added, 0 removed)"},
        "cors_origins": {"from": "none", "to": ORIGIN},
    }
    job = page.done(*page.ask("POST", "/config/apply", {"text": text, "sha256": config["sha256"]}))
    assert (job["models"], job["error"]) == ([], None)
    assert statuses(home, None, KEY) == [401, 200]
    home.write([fake()], api_keys=[KEY, OTHER])
    home.yibu("apply", "--yes")
    before = page.told("/config")["history"]
    assert [one["settings"] for one in before] == [
        {"port": "0", "cors_origins": ORIGIN, "api_keys": "1"},
        {"port": "0"},
    ]
    assert page.done(*page.ask("POST", "/config/rollback"))["error"] is None
    assert statuses(home, None, KEY, OTHER) == [401, 200, 401]

"""What is counted for each key is what its clients counted: keys are replaced and engines killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

from tests.support.counting import Count, ask_on
from tests.support.polling import eventually, until

from .home import Home, fake

_REQUESTS = 40


@dataclass
class Client:
    """Asks with one key, one request after the other."""

    key: str
    streams: bool = False
    """Every other answer is a stream, of which this engine does not count the tokens."""
    statuses: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    broken: int = 0
    """Streams that ended in an error."""

    def run(self, url: str) -> None:
        for number in range(_REQUESTS):
            self.ask(url, stream=self.streams and number % 2 == 1)

    def ask(self, url: str, *, stream: bool) -> None:
        message = {"role": "user", "content": "hello"}
        body = {"model": "fake", "messages": [message], "stream": stream}
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read().decode()
                self.statuses[answer.status] += 1
        except urllib.error.HTTPError as error:
            with error:
                self.statuses[error.code] += 1
            return
        if stream:
            self.broken += "data: [DONE]" not in text
        else:
            self.tokens += json.loads(text)["usage"]["total_tokens"]


def test_usage_is_what_the_clients_counted(home: Home) -> None:
    keys = {name: home.yibu("key", "add", name).stdout.strip() for name in ("alice", "bob")}
    home.write([fake(replicas=2)])
    home.yibu("up", "-d")
    url = home.url()
    clients = {
        name: [Client(key, streams=name == "alice") for _ in range(3)] for name, key in keys.items()
    }
    threads = [
        threading.Thread(target=client.run, args=(url,))
        for some in clients.values()
        for client in some
    ]
    for thread in threads:
        thread.start()
    until(lambda: clients["alice"][0].statuses.total() > 5)
    new = home.yibu("key", "rotate", "alice", "--grace", "1h").stdout.strip()
    os.kill(home.model("fake")["replicas"][0]["pid"], signal.SIGKILL)
    clients["alice"].append(Client(new))
    clients["alice"][-1].run(url)
    for thread in threads:
        thread.join()
    told = json.loads(home.yibu("usage", "--by", "key", "--json").stdout)["usage"]
    assert {row["key"] for row in told} == set(clients)
    for row in told:
        some = clients[row["key"]]
        statuses = sum((client.statuses for client in some), Counter[int]())
        assert 401 not in statuses
        assert row["requests"] == statuses.total() == _REQUESTS * len(some)
        broken = sum(client.broken for client in some)
        assert row["errors"] == statuses.total() - statuses[200] + broken
        if row["key"] == "bob":
            assert row["total_tokens"] == sum(client.tokens for client in some)


def used(home: Home, key: str) -> int:
    """Requests of a key, as the command line reads them."""
    rows = json.loads(home.yibu("usage", "--by", "key", "--json").stdout)["usage"]
    return sum(row["requests"] for row in rows if row["key"] == key)


def test_a_node_that_is_stopped_writes_what_it_has_answered(home: Home) -> None:
    key = home.yibu("key", "add", "alice").stdout.strip()
    home.write([fake()])
    home.yibu("up", "-d")
    client = Client(key)
    client.run(home.url())
    home.yibu("down")
    assert used(home, "alice") == client.statuses[200] == _REQUESTS


def test_both_nodes_write_what_they_have_answered_during_an_upgrade(home: Home) -> None:
    key = home.yibu("key", "add", "alice").stdout.strip()
    home.write([fake()])
    home.yibu("up", "-d")
    count = Count()

    async def play() -> None:
        port = int(home.url().rpartition(":")[2])
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask_on(port, "fake", count, key=key))
            await eventually(lambda: count.answered > 50, "answers before")
            await asyncio.to_thread(home.yibu, "node", "upgrade")
            most = count.answered + 50
            await eventually(lambda: count.answered > most, "answers after")
            count.stop = True

    asyncio.run(play())
    assert not count.lost
    until(lambda: used(home, "alice") == count.answered, "what the old node answered last")

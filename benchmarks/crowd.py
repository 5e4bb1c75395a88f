"""A thousand clients at once against a model of eight slots: how long they wait, and the node's memory.

    python benchmarks/crowd.py [--clients N] [--slots N] [--seconds S] [--json]

The engine is a fake that answers each request after ``--seconds``. A perfect queue that gets the same requests at the
same moments has the last client answered after clients / slots × seconds; nobody should wait more than 1.5 times what it
would be there. The memory is the node's, before, at its most, and after.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import sys
import tempfile
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from tests.e2e.home import Home, fake

MIB = 1024**2


@dataclass(frozen=True)
class Crowd:
    sent: list[float]
    """When each request was on its way, in order, in seconds from the first connection on: a thousand
    connections take this program a while, which is no wait of the gateway's."""
    answered: list[float]
    """When each client had its answer, in order."""
    most: int
    """The node's largest resident memory."""


async def crowd(port: int, clients: int, node: psutil.Process) -> Crowd:
    body = json.dumps(
        {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
    ).encode()
    data = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    most = 0
    sent, answered = [], []
    began = time.perf_counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        sent.append(time.perf_counter() - began)
        answer = await reader.read()
        answered.append(time.perf_counter() - began)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        writer.close()

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, node.memory_info().rss)
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(client() for _ in range(clients)))
    watching.cancel()
    return Crowd(sent, answered, most)


def perfect_queue(sent: list[float], slots: int, seconds: float) -> list[float]:
    """When a queue without any cost of its own has each of these requests answered."""
    free = [0.0] * slots
    done = []
    for moment in sorted(sent):
        done.append(max(moment, heapq.heappop(free)) + seconds)
        heapq.heappush(free, done[-1])
    return done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Home(Path(directory)) as home:
        entry = fake("fake", "--tokens", "1", "--slow-tokens", str(args.seconds))
        home.write([{**entry, "max_concurrency": args.slots}])
        home.yibu("up", "-d")
        node = psutil.Process(home.ps()["node"]["pid"])
        port = urllib.parse.urlsplit(home.url()).port or 0
        asyncio.run(crowd(port, args.slots, node))  # what is made at the first requests is made
        before = node.memory_info().rss
        measured = asyncio.run(crowd(port, args.clients, node))
        after = node.memory_info().rss
    perfect = perfect_queue(measured.sent, args.slots, args.seconds)
    pairs = list(zip(measured.answered, perfect, strict=True))
    worst = max(pairs, key=lambda pair: pair[0] / pair[1])
    found = {
        "all_sent_seconds": measured.sent[-1],
        "last_seconds": measured.answered[-1], "perfect_seconds": perfect[-1],
        "worst_ratio": worst[0] / worst[1], "worst_number": pairs.index(worst) + 1,
        "worst_seconds": worst[0], "load": os.getloadavg()[0],
        "before_mib": before / MIB, "most_mib": measured.most / MIB, "after_mib": after / MIB,
    }  # fmt: skip
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:16} {value:8.2f}")


if __name__ == "__main__":
    main()

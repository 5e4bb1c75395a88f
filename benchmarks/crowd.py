"""A thousand clients at once against a model of eight slots: how long they wait, and the node's memory.

    python benchmarks/crowd.py [--clients N] [--slots N] [--seconds S] [--json]

The engine is a fake that answers each request after ``--seconds``. A perfect queue has the last client answered
after clients / slots × seconds; nobody should wait more than 1.5 times what it would be there. The memory is the node's,
before, at its most, and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import aiohttp
import psutil
from tests.e2e.home import Home, fake

MIB = 1024**2


async def crowd(url: str, clients: int, node: psutil.Process) -> tuple[list[float], int]:
    """When each client had its answer, in order, in seconds; and the node's largest resident memory."""
    body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
    most = 0
    began = time.perf_counter()

    async def client(session: aiohttp.ClientSession) -> float:
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
        return time.perf_counter() - began

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, node.memory_info().rss)
            await asyncio.sleep(0.1)

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        watching = asyncio.create_task(watch())
        times = await asyncio.gather(*(client(session) for _ in range(clients)))
        watching.cancel()
    return sorted(times), most


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
        asyncio.run(
            crowd(home.url(), args.slots, node)
        )  # what is made at the first requests is made
        before = node.memory_info().rss
        times, most = asyncio.run(crowd(home.url(), args.clients, node))
        after = node.memory_info().rss
    perfect = [(number // args.slots + 1) * args.seconds for number in range(args.clients)]
    worst = max(
        found / best for found, best in zip(times[args.slots :], perfect[args.slots :], strict=True)
    )
    found = {
        "last_seconds": times[-1], "perfect_seconds": perfect[-1], "worst_ratio": worst,
        "before_mib": before / MIB, "most_mib": most / MIB, "after_mib": after / MIB,
    }  # fmt: skip
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:16} {value:8.2f}")


if __name__ == "__main__":
    main()

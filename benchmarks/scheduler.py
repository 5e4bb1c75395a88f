"""What the scheduler costs a request that finds a ready replica with room: taken and given back.

    python benchmarks/scheduler.py [--rounds N]

No engine, no socket: the simulated machine of tests/node/scheduler, the lowest of many rounds of 1,000
requests, in CPU time.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.node.scheduler.world import World

from yibu.config import ModelConfig
from yibu.node.scheduler import Waiter

_REQUESTS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    print("| ready replicas | µs a request | with affinity |\n|---|---|---|")
    for replicas in (1, 4):
        world = World(random.Random(0), trouble=0.0, min_up=0.0)
        world.up(ModelConfig("m", replicas=replicas, max_concurrency=8), size=1)
        world.ticks(20)
        plain, preferring = (lowest(world, rounds, affinity) for affinity in (None, 7))
        print(f"| {replicas} | {plain:.1f} | {preferring:.1f} |")


def lowest(world: World, rounds: int, affinity: int | None) -> float:
    """The lowest of the rounds, in µs a request."""
    scheduler, now = world.scheduler, world.now
    found = []
    for _ in range(rounds):
        waiters = [Waiter("m", key="k", affinity=affinity) for _ in range(_REQUESTS)]
        begun = time.thread_time()
        for waiter in waiters:
            assert scheduler.request(waiter, now) is not None
            scheduler.answered(waiter, now)
        found.append((time.thread_time() - begun) / _REQUESTS)
    return min(found) * 1e6


if __name__ == "__main__":
    main()

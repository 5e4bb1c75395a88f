"""What it brings that the turns of one chat go to the same replica.

    python benchmarks/affinity.py [--chats N] [--turns N] [--words N] [--engine vllm] [--json] [--cache DIR]

Chats with a long first message, against two replicas of llama.cpp or of vLLM's CPU build. One side asks each chat with one key, so that all
its turns meet the replica whose prefix cache has them; the other asks each turn with another key, which spreads them, for
the key is part of what a replica is chosen by. Both in turn in one run; seconds to the first token of the turns
after the first, medians.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.startup import SOURCE
from tests.e2e.home import Home
from tests.e2e.vllm_models import VllmModels

WORDS = [
    "sea",
    "ship",
    "wind",
    "sail",
    "rope",
    "deck",
    "mast",
    "wave",
    "tide",
    "port",
    "star",
    "moon",
    "cloud",
    "storm",
    "shore",
    "sand",
]


def first_token(url: str, key: str, messages: list[dict[str, str]]) -> tuple[float, str]:
    """Seconds until the first token of an answer, and the answer."""
    body = {"model": "smol", "messages": messages, "max_tokens": 8, "stream": True}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    began, first, text = time.perf_counter(), 0.0, ""
    with urllib.request.urlopen(request, timeout=300) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:]).get("choices", ()):
                    text += choice["delta"].get("content") or ""
            if text and not first:
                first = time.perf_counter() - began
    return first, text


def chats(url: str, keys: list[str], args: argparse.Namespace, *, spread: bool) -> list[float]:
    """Seconds to the first token of each turn after the first, of some chats in turn."""
    chance = random.Random()
    histories = [
        [{"role": "user", "content": " ".join(chance.choices(WORDS, k=args.words))}]
        for _ in range(args.chats)
    ]
    found = []
    for turn in range(args.turns):
        for number, messages in enumerate(histories):
            key = keys[(number + (turn if spread else 0)) % len(keys)]
            seconds, text = first_token(url, key, messages)
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": "go on"},
            ]
            if turn:
                found.append(seconds)
    return found


def entry(engine: str, cache: Path) -> dict[str, Any]:
    """The model's entry in yibu.yaml: the same weights for both engines."""
    shared = {"name": "smol", "engine": engine, "replicas": 2}
    if engine == "vllm":
        options = {
            "max_model_len": 4096,
            "max_num_seqs": 4,
            "dtype": "bfloat16",
            "enforce_eager": True,
        }
        source = str(VllmModels.of(cache).smollm2())
        return {**shared, "source": source, "options": options}
    return {**shared, "source": SOURCE, "options": {"context": 4096, "parallel": 4}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chats", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--words", type=int, default=600)
    parser.add_argument("--engine", choices=["llama.cpp", "vllm"], default="llama.cpp")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path(".test-cache"))
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        Home(Path(directory), args.cache.absolute()) as home,
    ):
        home.write([entry(args.engine, args.cache.absolute())])
        keys = [home.yibu("key", "add", f"k{number}").stdout.strip() for number in range(16)]
        home.yibu("up", "-d", timeout=900)
        times: dict[str, list[float]] = {"one replica a chat": [], "spread": []}
        for _ in range(2):
            for side in times:
                times[side] += chats(home.url(), keys, args, spread=side == "spread")
    medians = {side: statistics.median(found) for side, found in times.items()}
    if args.json:
        print(json.dumps(medians))
        return
    for side, median in medians.items():
        print(f"{side:20} {median * 1000:7.0f} ms to the first token")
    print(f"ratio {medians['spread'] / medians['one replica a chat']:.2f}")


if __name__ == "__main__":
    main()

"""llama.cpp among the engines of a chaos run: few ask it, for what a grammar leaves one answer to."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from tests.chaos.acts import Order
from tests.chaos.books import Books, Entry
from tests.chaos.client import Customer, Ration, encoded
from tests.chaos.ledger import PROBE
from yibu.environments.manager import EnvironmentManager
from yibu.environments.uv_settings import UvSettings

LLAMA = "llama"
_MODEL = "data/yibu/store/packages/*/SmolLM2-135M-Instruct.Q4_1.gguf"
_ENVIRONMENTS = "cache/yibu/environments"
_PAUSE = 2.0
"""Seconds between two requests, at most: it shares two cores with all others."""


class Llama:
    """What is needed of the cache of real engines' tests; nothing is downloaded or installed here."""

    def __init__(self, cache: Path) -> None:
        self.environments = cache / _ENVIRONMENTS
        self._model = next(iter(sorted(cache.glob(_MODEL))), None)
        manager = EnvironmentManager(
            self.environments, UvSettings.from_pip(os.environ), env=os.environ
        )
        made = any(found.name == "llama.cpp" and found.current for found in manager.list())
        self.why_not = "" if made and self._model else f"llama.cpp: nothing of it in {cache}"

    def entry(self) -> dict[str, Any]:
        options = {"context": 2048, "parallel": 4, "threads": 1, "program": "packaged"}
        return {"name": LLAMA, "source": str(self._model), "options": options}


def entry_of(nonce: str, secret: str) -> Entry:
    """A question with one right answer."""
    return Entry(Order("plain", nonce, 0), LLAMA, True, True, "llama.cpp", PROBE, secret,
                 answer=json.dumps(nonce))  # fmt: skip


def request(entry: Entry) -> bytes:
    schema = {"type": "string", "const": entry.order.nonce}
    asked = {
        "messages": [{"role": "user", "content": f"Say {entry.order.nonce}"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }
    return encoded(entry, asked)


class Asker(Customer):
    """A client of llama.cpp alone."""

    def __init__(self, books: Books, port: int, chance: random.Random) -> None:
        super().__init__(books, port, chance, {LLAMA: True}, Ration(0.0))

    async def _next(self) -> None:
        await self._think(_PAUSE)
        line = await self._connected()
        nonce = f"n{self._chance.getrandbits(64):016x}"
        entry = self._books.begin(entry_of(nonce, self._books.ledger.secrets[PROBE]))
        line.send(request(entry))
        self._books.end(entry, await line.response())

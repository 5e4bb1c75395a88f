"""Prompts of a length in tokens, each different from its first word on, the same for the same seed.

A prefix cache finds nothing in them: what is measured is the reading of prompts, not the remembering.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from yibu.cli.bench.client import BenchClient
from yibu.errors import YibuError
from yibu.messages import tr

_WORDS = """
    time people year way day thing man world life hand part child eye woman place work week case
    point government company number group problem fact water money story month book room area
    house power game line end member law car city name team minute idea body back parent face
    level office door health person art war history party result change morning reason research
    girl guy moment air teacher force education foot boy age policy music market sense service
    paper order plan interest
"""
_SAMPLE = 400
"""Words that are counted to learn the tokens a word has."""
_SEVERAL = (64, 192)
"""Words of two prompts, whose difference tells it where the server has no tokenizer to ask."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Makes prompts of about ``tokens`` tokens, the template's own included."""

    tokens: int
    tokens_per_word: float
    overhead: float
    """Tokens that the chat template adds."""
    seed: int
    how: str
    """How the length was measured: ``tokenize`` or ``usage``."""

    def text(self, number: int) -> str:
        """The prompt of the ``number``-th request."""
        words = max(1, round((self.tokens - self.overhead) / self.tokens_per_word))
        return _words(f"{self.seed}/{number}", words)


async def measure(client: BenchClient, tokens: int, seed: int) -> Prompts:
    """Measure the tokens of prompts at the server.

    Raises:
        YibuError: it tells neither by /tokenize nor by its usage.
    """
    sample = _words(f"{seed}/sample", _SAMPLE)
    count = await _tokenized(client, sample)
    if count is not None:
        per_word = count / _SAMPLE
        known = await _used(client, _words(f"{seed}/one", _SEVERAL[0]))
        return Prompts(tokens, per_word, max(0.0, known - per_word * _SEVERAL[0]), seed, "tokenize")
    few, many = [await _used(client, _words(f"{seed}/{n}", n)) for n in _SEVERAL]
    per_word = (many - few) / (_SEVERAL[1] - _SEVERAL[0])
    if per_word <= 0:
        raise YibuError(
            "{url} does not count the tokens of prompts: {few} for {fewer} words and "
            "{many} for {more}",
            url=client.target.url,
            few=few,
            fewer=_SEVERAL[0],
            many=many,
            more=_SEVERAL[1],
            hint="Measure the engine's own address, or one that answers with a usage",
        )
    return Prompts(tokens, per_word, max(0.0, few - per_word * _SEVERAL[0]), seed, "usage")


async def _tokenized(client: BenchClient, text: str) -> int | None:
    """Tokens of a text; None where the server cannot be asked."""
    body = {"model": client.target.model, "prompt": text, "content": text}
    status, answer = await client.post("/tokenize", body)
    tokens = answer.get("tokens") if status == 200 and answer is not None else None
    return len(tokens) if isinstance(tokens, list) and tokens else None


async def _used(client: BenchClient, text: str) -> int:
    """Tokens of a chat with this text, as the server counts them in its usage."""
    body = {
        "model": client.target.model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 1,
    }
    status, answer = await client.post("/v1/chat/completions", body)
    usage = (answer or {}).get("usage") or {}
    if status != 200 or not isinstance(usage.get("prompt_tokens"), int):
        raise YibuError(
            tr(
                "{url} answers {status}, and no usage, to a plain chat",
                url=client.target.url,
                status=status,
            )
        )
    return int(usage["prompt_tokens"])


def _words(seed: str, count: int) -> str:
    chosen = random.Random(seed)  # noqa: S311  (prompts, not secrets)
    words = _WORDS.split()
    return " ".join(chosen.choice(words) for _ in range(count))

"""Answers that take several requests to llama.cpp, or another of its endpoints."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from yibu.engines.answers import CONTEXT_EXCEEDED
from yibu.engines.llama_cpp.messages import chat_of, message_of
from yibu.engines.requests import Body, Call, ModelContext, Steps, refusal
from yibu.errors import EngineGoneError, InvalidRequestError
from yibu.messages import tr

_FORCED = 1000.0
"""A bias that no other token's logit outweighs. Log probabilities are counted before it is added."""
_NO_INFILL = tr(
    "The model has no tokens that mark a prefix and a suffix. Leave 'suffix' out, or use "
    "a model for code that was trained to fill in"
)


def completion(body: Body, *, echo: bool) -> Steps:
    """A text completion preceded by its prompt, or with ``max_tokens: 0`` the prompt alone."""
    choices: list[Body] = []
    counts = [0, 0]
    answer: Body = {}
    for prompt in _each(body["prompt"]):
        tokens = prompt
        if isinstance(prompt, str):
            tokens = (yield Call("/tokenize", {"content": prompt, "add_special": True}))["tokens"]
        answer = yield from _generate(body, tokens)
        # Last, since a prompt that is too long has been refused by now.
        before = (yield from _prompt(body, prompt, tokens)) if echo else _Text()
        for choice in answer["choices"]:
            after = _Text() if body.get("max_tokens") == 0 else _Text.of(choice)
            choices.append(
                {
                    "index": len(choices),
                    "text": before.text + after.text,
                    "logprobs": (before + after).logprobs() if "logprobs" in body else None,
                    "finish_reason": choice.get("finish_reason"),
                }
            )
        counts[0] += len(tokens)
        if body.get("max_tokens") != 0:
            counts[1] += answer["usage"]["completion_tokens"]
    usage = {
        "prompt_tokens": counts[0],
        "completion_tokens": counts[1],
        "total_tokens": sum(counts),
    }
    kept: Body = {key: answer[key] for key in ("id", "object", "created", "model") if key in answer}
    return {**kept, "choices": choices, "usage": usage}


def _each(prompt: Any) -> list[Any]:
    """The prompts of a request: one, as text or tokens, or several."""
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    return prompt if several else [prompt]


def _generate(body: Body, tokens: list[int]) -> Steps:
    wanted = body.get("max_tokens", 16)
    return (
        yield Call(
            "/v1/completions",
            {**body, "prompt": tokens, "stream": False, "max_tokens": max(1, wanted)},
        )
    )


class _Text:
    """A piece of text with its tokens: their text, log probability, and the likeliest others."""

    def __init__(self, text: str = "", tokens: tuple[Body, ...] = ()) -> None:
        self.text = text
        self._tokens = tokens

    @classmethod
    def of(cls, choice: Body) -> _Text:
        content = (choice.get("logprobs") or {}).get("content") or ()
        return cls(choice.get("text", ""), tuple(content))

    def __add__(self, other: _Text) -> _Text:
        return _Text(self.text + other.text, self._tokens + other._tokens)

    def logprobs(self) -> Body:
        """The form of a text completion; the first token of a prompt has none."""
        names = [token["token"] for token in self._tokens]
        offsets = [0]
        for name in names[:-1]:
            offsets.append(offsets[-1] + len(name))
        return {
            "tokens": names,
            "token_logprobs": [token["logprob"] for token in self._tokens],
            "text_offset": offsets[: len(names)],
            "top_logprobs": [_likeliest(token) for token in self._tokens],
        }


def _likeliest(token: Body) -> dict[str, float] | None:
    if token["logprob"] is None:
        return None
    others = {other["token"]: other["logprob"] for other in token.get("top_logprobs", ())}
    return others | {token["token"]: token["logprob"]}


def _prompt(body: Body, prompt: Any, tokens: list[int]) -> Generator[Call, Body, _Text]:
    text = prompt
    if not isinstance(prompt, str):
        text = (yield Call("/detokenize", {"tokens": tokens}))["content"]
    if "logprobs" not in body or not tokens:
        return _Text(text)
    first = (yield Call("/detokenize", {"tokens": tokens[:1]}))["content"]
    scored: list[Body] = [{"token": first, "logprob": None}]
    for index in range(1, len(tokens)):
        scored += [(yield from _score(tokens[:index], tokens[index], body["logprobs"]))]
    return _Text(text, tuple(scored))


def _score(before: list[int], token: int, others: int) -> Steps:
    """The log probability of ``token`` after the tokens before it, which llama.cpp is forced to
    generate.

    llama.cpp gives the log probabilities of what it generates alone.
    """
    answer = yield Call(
        "/completion",
        {
            "prompt": before,
            "n_predict": 1,
            "n_probs": max(1, others),
            "logit_bias": [[token, _FORCED]],
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": True,
            "response_fields": ["completion_probabilities"],
        },
    )
    found: Body = (answer.get("completion_probabilities") or [{}])[0]
    if found.get("id") != token:
        raise EngineGoneError(
            "llama.cpp answered with token {found} where it was made to say {token}",
            found=found.get("id"),
            token=token,
            code="engine_protocol_error",
        )
    if not found["token"]:  # a token that llama.cpp does not show, such as the one that ends a turn
        found["token"] = (yield Call("/detokenize", {"tokens": [token]}))["content"]
    found["top_logprobs"] = found.get("top_logprobs", [])[:others]
    return found


def infill(body: Body, suffix: str, asked: ModelContext) -> Steps:
    """A text completion between its prompt and a suffix, by ``/infill``."""
    wanted = {key: value for key, value in body.items() if key not in ("prompt", "stream")}
    if "logprobs" in wanted:
        wanted["n_probs"] = max(1, wanted.pop("logprobs"))
    wanted |= {"input_prefix": body["prompt"], "input_suffix": suffix}
    wanted.setdefault("max_tokens", 16)
    answer: Any = yield Call("/infill", wanted, refusal("suffix", _NO_INFILL, asked))
    parts = answer if isinstance(answer, list) else [answer]
    yield from _refuse_cut(body["prompt"], suffix, parts[0]["tokens_evaluated"])
    choices = []
    for index, part in enumerate(parts):
        text = _Text(part["content"], tuple(part.get("completion_probabilities", ())))
        choices.append(
            {
                "index": index,
                "text": text.text,
                "logprobs": text.logprobs() if "logprobs" in body else None,
                "finish_reason": "length" if part.get("stop_type") == "limit" else "stop",
            }
        )
    counts = parts[0]["tokens_evaluated"], sum(part["tokens_predicted"] for part in parts)
    return {
        "object": "text_completion",
        "model": body.get("model"),
        "choices": choices,
        "usage": {
            "prompt_tokens": counts[0],
            "completion_tokens": counts[1],
            "total_tokens": sum(counts),
        },
    }


def _refuse_cut(prompt: str, suffix: str, evaluated: int) -> Generator[Call, Body]:
    """Refuse what ``/infill`` has read a part of only, which it does not say.

    Its own tokens count among the evaluated ones: three marks, and up to four for a file's name.

    Raises:
        InvalidRequestError: it has evaluated fewer tokens than both texts have.
    """
    counts = []
    for text in (prompt, suffix):
        wanted = {"content": text, "add_special": False, "parse_special": False}
        counts.append(len((yield Call("/tokenize", wanted))["tokens"]))
    if evaluated < sum(counts) + 3:
        raise InvalidRequestError(
            "The prompt has {prompt} tokens and 'suffix' {suffix}, which is more than llama.cpp reads "
            "around a gap: three quarters of a batch before it and one quarter behind it",
            prompt=counts[0],
            suffix=counts[1],
            hint="Send less of the text around the gap, or raise options.batch of the model in yibu.yaml "
            "(2048 unless it is set)",
            param="prompt",
            code=CONTEXT_EXCEEDED,
        )


def cut_embeddings(body: Body, length: int) -> Steps:
    """Vectors cut to ``length`` and normalized, as Matryoshka models are trained for."""
    answer = yield Call("/v1/embeddings", {**body, "encoding_format": "float"})
    for item in answer["data"]:
        vector = item["embedding"][:length]
        size = math.sqrt(math.fsum(value * value for value in vector)) or 1.0
        item["embedding"] = [value / size for value in vector]
    return answer


def tokenize_chat(body: Body) -> Steps:
    """The tokens of a chat, as the model's template writes it."""
    kept = ("messages", "tools", "add_generation_prompt", "chat_template_kwargs")
    chat = {key: body[key] for key in kept if key in body}
    prompt = (yield Call("/apply-template", chat))["prompt"]
    wanted = {"content": prompt, "add_special": True, "parse_special": True}
    return (yield Call("/tokenize", wanted))


def message_by_chat(body: Body, schema: Any) -> Steps:
    """A message whose text is JSON of a schema (None: any), or that calls one tool at most, by
    ``/v1/chat/completions``: llama.cpp's own ``/v1/messages`` knows neither."""
    chat = yield Call("/v1/chat/completions", chat_of(body, schema))
    return message_of(chat)

"""Parts of choices that whole answers and streams have in common, as OpenAI's specification has them."""

from __future__ import annotations

import re
import time

from yibu.engines.answers import Fields, objects
from yibu.gateway.answers.toolcalls import as_text
from yibu.gateway.answers.usage import tokens_of
from yibu.gateway.envelope import EngineAnswerError
from yibu.messages import tr

TEXT_REASONS = frozenset({"stop", "length", "content_filter"})
"""Reasons for which a text completion may end."""
_REASONS = TEXT_REASONS | {"tool_calls", "function_call"}
_LIKE = (
    (re.compile("abort|cancel|error|fail|timeout"), ""),
    (re.compile("length|max_(new_)?tokens|context|limit"), "length"),
    (re.compile("^tool_"), "tool_calls"),
    (re.compile("filter|safety|refus"), "content_filter"),
)
"""The specification's words for engines' finish reasons; empty for an answer that was not finished."""


def finish_reason(given: object, model: str) -> str | None:
    """The specification's finish reason: typed clients raise on any other.

    Raises:
        EngineAnswerError: it ended because the engine gave up.
    """
    if not given:
        return None
    if given in _REASONS:
        return str(given)
    if not isinstance(given, str):
        raise TypeError("a finish_reason that is no text")
    word = given.lower().replace("-", "_")
    # TGI's eos_token and stop_sequence, Anthropic's end_turn, and the like, are a stop.
    reason = next((meant for pattern, meant in _LIKE if pattern.search(word)), "stop")
    if not reason:
        raise EngineAnswerError(
            502,
            tr(
                "The engine of model {model!r} gave the answer up: its finish_reason is {given!r}",
                model=model,
                given=given,
            ),
            "server_error",
            code="engine_gone",
        )
    return word if word in _REASONS else reason


def place_of(item: Fields, index: int) -> int:
    """The index that an item of a list gives itself, else its position."""
    given = item.get("index")
    return index if given is None else int(given)


def join_content(message: Fields) -> None:
    """Make the content of an assistant's message or delta, and the arguments of a call in the older
    form, the one text that they are in answers.

    Raises:
        TypeError: it is neither a text nor a list of texts.
    """
    call = message.get("function_call")
    if isinstance(call, dict) and "arguments" in call:
        call["arguments"] = as_text(call["arguments"])
    elif call is None:
        message.pop("function_call", None)
    content = message.get("content")
    if isinstance(content, list):
        content = message["content"] = "".join(
            [part["text"] for part in content if part.get("type", "text") != "thinking"]
        )
    if content is not None and not isinstance(content, str):
        raise TypeError("a content that is no text")


_SAID = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")


def says_something(choice: Fields) -> bool:
    """Whether a streamed choice carries a part of the answer."""
    delta = choice.get("delta") or choice.get("message") or {}
    return bool(choice.get("text")) or any(delta.get(name) for name in _SAID)


def cut_alternatives(choice: Fields, most: int) -> None:
    """Keep the ``most`` likeliest alternatives of each token: an engine may give more."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return
    for token in objects(logprobs.get("content")):
        token["top_logprobs"] = objects(token.get("top_logprobs"))[:most]
        for scored in (token, *token["top_logprobs"]):
            scored.setdefault("bytes", None)
            if scored.get("logprob") is None:  # SGLang's JSON has null for minus infinity
                scored["logprob"] = -9999.0  # OpenAI's value for it
    if most == 0 and "tokens" in logprobs:  # a text completion's: each token stands for itself
        pairs = zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)
        logprobs["top_logprobs"] = [
            None if value is None else {name: value} for name, value in pairs
        ]


# vLLM writes null where the specification has an object or nothing.
_USAGE_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


def complete_usage(answer: Fields) -> None:
    """Complete a usage's names and total; remove a usage that counts nothing."""
    usage = answer.get("usage")
    counted = tokens_of(usage)
    if counted is None:
        answer.pop("usage", None)
    elif isinstance(usage, dict):
        usage["prompt_tokens"], usage["completion_tokens"] = counted.prompt, counted.completion
        usage["total_tokens"] = counted.prompt + counted.completion
        for name in _USAGE_DETAILS:
            if usage.get(name) is None:
                usage.pop(name, None)


def complete_head(answer: Fields, kind: str) -> None:
    """Complete the fields beside the choices of an answer or chunk; ``kind`` is its ``object``."""
    answer["object"] = kind
    created = answer.get("created")
    if type(created) is not int:
        answer["created"] = int(created if isinstance(created, float) else time.time())

"""``/tokenize`` and ``/detokenize``: one shape for engines that have two.

vLLM takes ``prompt`` and answers ``count`` and ``prompt``; llama.cpp takes ``content``, answers
``content``, and cuts a text that it does not find into no tokens, without a word. Either shape is
taken here, and both are sent on and answered.
"""

from __future__ import annotations

from typing import Any

from yibu.errors import InvalidRequestError
from yibu.gateway.envelope import NotCapableError

Body = dict[str, Any]


def normalise_tokenize(body: Body) -> None:
    """Give the text both of its names.

    Raises:
        InvalidRequestError: there is neither a text nor messages.
    """
    if "prompt" in body:
        body["content"] = body["prompt"]
        body.setdefault("add_special", body.get("add_special_tokens", True))
    elif "content" in body:
        body["prompt"] = body["content"]
        body.setdefault("add_special_tokens", bool(body.get("add_special")))
    elif "messages" not in body:
        raise InvalidRequestError(
            "'prompt' is missing: the text to cut into tokens; a chat goes into 'messages'",
            param="prompt",
            code="missing_required_parameter",
        )


def mend_tokenized(answer: Body, body: Body, model: str) -> None:
    """Count the tokens, where they are not counted.

    Raises:
        NotCapableError: messages were given, and the engine knows nothing of them.
    """
    tokens = answer.get("tokens")
    if not isinstance(tokens, list):
        return
    if not tokens and "prompt" not in body:
        raise NotCapableError(
            f"The engine of model {model!r} cuts a prompt into tokens, not messages",
            hint="/v1/messages/count_tokens counts those of a chat",
            param="messages",
        )
    answer.setdefault("count", len(tokens))


def mend_detokenized(answer: Body) -> None:
    """Give the text both of its names."""
    for name, other in (("prompt", "content"), ("content", "prompt")):
        if name in answer:
            answer.setdefault(other, answer[name])

"""``/tokenize`` and ``/detokenize``: one shape for engines that have two.

vLLM takes ``prompt`` and answers ``count`` and ``prompt``; llama.cpp takes ``content``, answers
``content``, and cuts a text that it does not find into no tokens, without a word. Either shape is
taken here, and both are sent on and answered.
"""

from __future__ import annotations

from typing import Any

from yibu.errors import InvalidRequestError
from yibu.messages import tr

Body = dict[str, Any]


def normalize_tokenize(body: Body) -> None:
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
            tr("'prompt' is missing: the text to cut into tokens; a chat goes into 'messages'"),
            param="prompt",
            code="missing_required_parameter",
        )

"""Which requests have the beginning of their prompts in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

_BEGINNING = 1024
"""Characters; prefix caches keep blocks of some dozen tokens."""


def prompt_affinity(body: Mapping[str, Any], account: str) -> int | None:
    """A hash of who asks and of what the prompt begins with; None where there is no prompt.

    The turns of one conversation have their first message in common, so an engine that answered the
    ones before has them in its prefix cache.
    """
    messages = body.get("messages") or body.get("input")
    beginning = messages[0] if isinstance(messages, list) and messages else messages
    if beginning is None:
        beginning = body.get("prompt")
    if beginning is None:
        return None
    if not isinstance(beginning, str):
        beginning = orjson.dumps(beginning, option=orjson.OPT_SORT_KEYS).decode()
    return hash((account, beginning[:_BEGINNING]))

"""What SGLang's errors mean (0.5.23: ``managers/tokenizer_manager.py``, ``managers/utils.py``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from yibu.engines.answers import CONTEXT_EXCEEDED, PROMPT_FIELDS, Answers, Kind, RequestFault

_LENGTH = re.compile(
    r"exceeds the model's (?:maximum )?context length|exceeds the maximum allowed length"
)
"""Of the length checks, which have status 400 and the type of any other refusal."""


class SglangAnswers(Answers):
    def request_fault(
        self, kind: Kind, status: int, error: Mapping[str, Any]
    ) -> RequestFault | None:
        if status == 400 and _LENGTH.search(str(error.get("message"))):
            return RequestFault(CONTEXT_EXCEEDED, PROMPT_FIELDS.get(kind))
        return None

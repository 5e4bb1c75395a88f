"""What LMDeploy's errors mean (0.18: ``serve/core/async_engine.py``, ``serve/core/exceptions.py``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from yibu.engines.answers import CONTEXT_EXCEEDED, PROMPT_FIELDS, Answers, Kind, RequestFault

_LENGTH = re.compile(
    r"must be smaller than the model context length|exceeds the model context length"
)
"""Its code for them is the status, as of any other refusal."""


class LmdeployAnswers(Answers):
    def request_fault(
        self, kind: Kind, status: int, error: Mapping[str, Any]
    ) -> RequestFault | None:
        if status == 400 and _LENGTH.search(str(error.get("message"))):
            return RequestFault(CONTEXT_EXCEEDED, PROMPT_FIELDS.get(kind))
        return None

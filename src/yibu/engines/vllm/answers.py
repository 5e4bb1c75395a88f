"""What vLLM's errors mean (0.32: ``vllm/renderers/params.py``, ``v1/engine/input_processor.py``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from yibu.engines.answers import CONTEXT_EXCEEDED, PROMPT_FIELDS, Answers, Kind, RequestFault

_PARAMS = frozenset({"input_tokens", "input_text"})
"""What its length checks name as the parameter, which is no field of a request."""

_LENGTH = re.compile(
    r"maximum context length|longer than the maximum model length|exceeds the max_model_len"
)
"""Of the checks that name no parameter; every one of them has status 400 and the type of any other
refusal."""


class VllmAnswers(Answers):
    def request_fault(
        self, kind: Kind, status: int, error: Mapping[str, Any]
    ) -> RequestFault | None:
        if status != 400:
            return None
        if error.get("param") in _PARAMS or _LENGTH.search(str(error.get("message"))):
            return RequestFault(CONTEXT_EXCEEDED, PROMPT_FIELDS.get(kind))
        return None

"""The gateway against its own OpenAPI document: schemathesis makes the requests and reads the answers.

A part of `make chaos` (a few examples an operation) and of `make soak` (many).
"""

from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.gateway.test_fuzz import Fuzzed, fuzzed
from tests.gateway.upstream import Received, answering, streaming

__all__ = ["fuzzed"]

ANSWER = {
    "id": "c", "created": 1, "model": "m", "status": "completed",
    "choices": [{"index": 0, "finish_reason": "stop", "text": "t",
                 "message": {"role": "assistant", "content": "t"}}],
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5], "score": 0.5}], "results": [], "output": [],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, "text": "t",
    "prompt": "t", "input_tokens": 1, "tokens_evaluated": 1, "tokens_predicted": 1,
    "tokens": [1], "result": "t", "type": "message", "role": "assistant", "stop_reason": "end_turn",
}  # fmt: skip


async def as_asked(received: Received, writer: asyncio.StreamWriter) -> bool:
    """An engine's answer: whole, or the choices of several prompts as a stream, as the gateway asks for them."""
    body = received.json if received.body.startswith(b"{") else {}
    if not body.get("stream"):
        content = "t" if received.path.endswith(("detokenize", "infill")) else []
        return await answering({**ANSWER, "content": content})(received, writer)
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [""]
    choices = [
        {"index": index, "text": "t", "finish_reason": "stop"} for index in range(len(prompts))
    ]
    chunk = json.dumps({**ANSWER, "choices": choices}).encode()
    return await streaming(chunk, b"[DONE]")(received, writer)


@pytest.mark.chaos
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore")  # schemathesis' own, and its dependencies'
def test_answers_are_as_documented(fuzzed: Fuzzed, request: pytest.FixtureRequest) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis
        from schemathesis.checks import CHECKS
    examples = max(5, int(request.config.getoption("chaos_seconds")) // 30)
    fuzzed.behave(as_asked)
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")
    checks = CHECKS.get_by_names(
        ["not_a_server_error", "status_code_conformance", "content_type_conformance",
         "response_schema_conformance"]
    )  # fmt: skip
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=examples, suppress_health_check=list(HealthCheck), deadline=None)
        def one(case: Any) -> None:
            if isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = "ears" if "audio" in case.path else "m"
                for name in ("n", "stream"):  # the engine here gives one choice, whole
                    case.body.pop(name, None)
                if case.path.startswith("/api/"):  # Ollama's stream unless they are told not to
                    case.body["stream"] = False
            case.call_and_validate(checks=checks, timeout=60)

        one()
        tried += 1
    print(f"\n{tried} operations of the OpenAPI document, {examples} examples each")
    assert tried > 15

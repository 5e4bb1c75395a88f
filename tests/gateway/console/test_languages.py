"""What the console's API says of models is in the language that the browser asks for."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from yibu.gateway.access import EXCHANGE
from yibu.gateway.console.answers import answer
from yibu.gateway.operations import OPERATIONS, Operation
from yibu.management.catalogue import rows
from yibu.messages import render, tr
from yibu.planner.types import Machine


@pytest.mark.parametrize(("language", "said"), [("zh_CN", "无"), ("en", "none")])
async def test_texts_are_in_the_readers_language(language: str, said: str) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", EXCHANGE: SimpleNamespace(language=language)}
    models = [{"name": "none", "cause": tr("none"), "hints": (tr("none"),)}]
    await answer({"models": models}, 202)(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    headers = dict(sent[0]["headers"])
    assert (sent[0]["status"], headers[b"content-length"]) == (202, str(len(body)).encode())
    assert json.loads(body)["models"] == [{"name": "none", "cause": said, "hints": [said]}]


def test_what_the_console_decides_by_is_a_code() -> None:
    machine = Machine("m", 8, 8, 1 << 40, 1 << 40, ())
    assert {type(entry["fits"]) for entry in rows(None, machine)} <= {str, type(None)}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.path)
def test_what_a_model_is_for_is_said_in_chinese(operation: Operation) -> None:
    assert re.search("[\u4e00-\u9fff]", render(operation.noun, "zh_CN"))

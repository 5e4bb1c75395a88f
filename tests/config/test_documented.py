"""Every setting is documented."""

from __future__ import annotations

import re
from pathlib import Path

from yibu.config.schema import GatewaySchema, ModelSchema

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_every_key_of_the_file() -> None:
    for name in GatewaySchema.model_fields:
        assert f"`gateway.{name}`" in DOCUMENT
    for name in ModelSchema.model_fields:
        assert f"`models[].{name}`" in DOCUMENT


def test_every_variable_of_ours() -> None:
    used = set()
    for path in (ROOT / "src" / "yibu").rglob("*.py"):
        used |= set(re.findall(r'"(YIBU_[A-Z_]+)"', path.read_text(encoding="utf-8")))
    # These go from yibu to the processes that it starts; nobody sets them by hand.
    inner = {"YIBU_REPLICA", "YIBU_ENGINE_KEY", "YIBU_SPEECH_KEY"}
    assert {name for name in used - inner if f"`{name}`" not in DOCUMENT} == set()

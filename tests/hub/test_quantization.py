"""GGUF repositories: one quantization comes, the right one, and the listing decides it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.conftest import Machine
from tests.planner.planner_files import LLAMA, gguf_bytes
from yibu.environments.manager import EnvironmentManager
from yibu.environments.uv_settings import UvSettings
from yibu.errors import DoesNotFitError, HubNotFoundError, VerificationError, YibuError
from yibu.hub import quantization
from yibu.hub.digest import Expected
from yibu.hub.selection import RemoteFile, select
from yibu.hub.store import Store
from yibu.hub.types import LocalModel, Source
from yibu.planner.facts import read_facts
from yibu.planner.headers import remote_facts
from yibu.planner.types import Machine as Hardware
from yibu.resolve import Resolver
from yibu.resolve.quantization import by_plan

GIB = 1 << 30
RESOLVER = Resolver(EnvironmentManager(Path("/nowhere"), UvSettings(), env={}))
REPO = "org/Tiny-GGUF"


def gguf(size: int, seed: int = 0) -> bytes:
    """A llama of two layers whose one tensor has ``size`` bytes."""
    header = gguf_bytes(LLAMA, [("w", (size // 4,), 0, 0)])
    return header + bytes([seed]) * size


SMALL = {
    "README.md": b"# Tiny",
    "Tiny-Q8_0.gguf": gguf(80_000, 8),
    "Tiny-Q4_K_M.gguf": gguf(40_000, 4),
    "Tiny-Q2_K.gguf": gguf(20_000, 2),
    "mmproj-Tiny-F32.gguf": gguf(8000, 32),
    "mmproj-Tiny-F16.gguf": gguf(4000, 16),
    "Tiny.imatrix.gguf": gguf(400, 1),
}


@pytest.fixture(params=["modelscope", "hf"])
def tiny(request: pytest.FixtureRequest, machine: Machine) -> Source:
    machine.hub.repos[REPO] = dict(SMALL)
    return Source(request.param, REPO)


def names(model: LocalModel) -> list[str]:
    return [file.path for file in model.files]


def with_memory(machine: Machine, free: int) -> Store:
    """A store that chooses by the plan of a machine with so much free memory."""
    here = Hardware("here", 4, 4, 64 * GIB, free)
    return Store(machine.paths, machine.settings, by_plan(RESOLVER, lambda: here))


def listing(files: Mapping[str, int]) -> list[RemoteFile]:
    return [RemoteFile(path, Expected(size)) for path, size in files.items()]


def test_the_usual_one_comes_with_its_projector(machine: Machine, tiny: Source) -> None:
    model = with_memory(machine, 16 * GIB).pull(tiny)
    assert names(model) == ["Tiny-Q4_K_M.gguf", "mmproj-Tiny-F16.gguf"]
    assert model.path.name == "Tiny-Q4_K_M.gguf"
    assert model.projector == model.path.with_name("mmproj-Tiny-F16.gguf")
    (note,) = model.notes
    assert "Q4_K_M (0 MB) is taken, the usual one, and it fits here" in note
    assert "Q8_0 (0 MB), Q2_K (0 MB): name one with" in note
    assert machine.hub.bodies("Q8_0.gguf") == machine.hub.bodies("Q2_K.gguf") == 0
    assert machine.store.find(tiny) == replace(model, notes=())
    facts = read_facts(model.path, model.projector)
    assert facts.projector_bytes == len(SMALL["mmproj-Tiny-F16.gguf"])
    assert facts.weight_bytes == 40_000 + facts.projector_bytes


def test_the_largest_that_fits_by_the_plan(machine: Machine, tiny: Source) -> None:
    """The sizes are the listing's; the one header that is read is a real one."""
    found = [
        quantization.Variant("m-Q4_K_M", "Q4_K_M", ("Tiny-Q4_K_M.gguf",), 9 * GIB),
        quantization.Variant("m-Q3_K_M", "Q3_K_M", ("Tiny-Q2_K.gguf",), 7 * GIB),
        quantization.Variant("m-Q2_K", "Q2_K", ("Tiny-Q2_K.gguf",), 5 * GIB),
    ]
    with machine.store.fetch_config(replace(tiny, tag="Q4_K_M")) as headers:
        every = replace(headers, source=tiny)
        for free, expected in ((16, "Q4_K_M"), (12, "Q3_K_M"), (10, "Q2_K")):
            here = Hardware("here", 4, 4, 64 * GIB, free * GIB)
            choice = by_plan(RESOLVER, lambda here=here: here)(found, every)
            assert choice.variant.label == expected
            assert ("Q4_K_M does not fit" in choice.why) == (expected != "Q4_K_M")
        with pytest.raises(DoesNotFitError, match="none of its quantizations") as refused:
            by_plan(RESOLVER, lambda: Hardware("here", 4, 4, 64 * GIB, 2 * GIB))(found, every)
        assert f"such as {tiny}:Q2_K, and --force" in refused.value.hint
        assert "Q3_K_M (7.5 GB)" in refused.value.hint


def test_a_machine_without_room_fetches_nothing(machine: Machine, tiny: Source) -> None:
    with pytest.raises(DoesNotFitError):
        with_memory(machine, 0).pull(tiny)
    assert machine.store.list() == []
    named = with_memory(machine, 0).pull(replace(tiny, tag="Q2_K"))
    assert named.path.name == "Tiny-Q2_K.gguf"


def test_what_was_chosen_stays_chosen(machine: Machine, tiny: Source) -> None:
    first = with_memory(machine, 16 * GIB).pull(tiny)
    again = with_memory(machine, 0).pull(tiny)
    assert (again.path, again.notes) == (first.path, ())
    offline = machine.with_settings(offline=True)
    assert offline.store.pull(tiny).path == first.path
    del machine.hub.repos[REPO]["Tiny-Q4_K_M.gguf"]  # the author takes it away
    assert with_memory(machine, 16 * GIB).pull(tiny).path.name == "Tiny-Q8_0.gguf"


def test_offline_the_one_that_is_here_is_taken(machine: Machine, tiny: Source) -> None:
    named = machine.store.pull(replace(tiny, tag="Q8_0"))
    found = machine.with_settings(offline=True).store.pull(tiny)
    assert found.path == named.path


@pytest.mark.parametrize(
    ("tag", "file"),
    [
        ("Q8_0", "Tiny-Q8_0.gguf"),
        ("q8_0", "Tiny-Q8_0.gguf"),
        ("Tiny-Q2_K", "Tiny-Q2_K.gguf"),
        ("tiny-q2_k.gguf", "Tiny-Q2_K.gguf"),
    ],
)
def test_a_tag_names_one(machine: Machine, tiny: Source, tag: str, file: str) -> None:
    model = machine.store.pull(replace(tiny, tag=tag))
    assert names(model) == [file, "mmproj-Tiny-F16.gguf"]
    assert hashlib.sha256(model.path.read_bytes()).hexdigest() == model.files[0].sha256
    with machine.store.fetch_config(replace(tiny, tag=tag)) as headers:
        assert remote_facts("m", headers).weight_bytes == len(SMALL["mmproj-Tiny-F16.gguf"]) + len(
            SMALL[file]
        ) - len(gguf(0))


def test_a_tag_that_is_not_there_lists_those_that_are(machine: Machine, tiny: Source) -> None:
    with pytest.raises(HubNotFoundError, match="no quantization 'Q5_K_M'") as refused:
        machine.store.pull(replace(tiny, tag="Q5_K_M"))
    assert "Q4_K_M (0 MB), Q8_0 (0 MB), Q2_K (0 MB)" in refused.value.hint
    machine.hub.repos[REPO] = {"model.safetensors": b"x"}
    with pytest.raises(HubNotFoundError, match="no GGUF files"):
        machine.store.pull(replace(tiny, tag="Q5_K_M"))
    assert machine.hub.sent == {}


def test_one_file_brings_its_projector_and_the_projector_none(
    machine: Machine, tiny: Source
) -> None:
    model = machine.store.pull(replace(tiny, file="Tiny-Q8_0.gguf"))
    assert names(model) == ["Tiny-Q8_0.gguf", "mmproj-Tiny-F16.gguf"]
    assert model.path.name == "Tiny-Q8_0.gguf"
    alone = machine.store.pull(replace(tiny, file="mmproj-Tiny-F32.gguf"))
    assert names(alone) == ["mmproj-Tiny-F32.gguf"]


PARTS = {f"UD-Q4_K_XL/big-UD-Q4_K_XL-{number:05}-of-00003.gguf": 1000 for number in (1, 2, 3)}


@pytest.mark.parametrize(
    "named", [{}, {"tag": "UD-Q4_K_XL"}, {"tag": "q4_k_xl"}, {"file": min(PARTS)}]
)
def test_parts_come_together_or_not_at_all(named: dict[str, str]) -> None:
    source = dataclasses.replace(Source("hf", REPO), **named)  # type: ignore[arg-type]
    files = {**PARTS, "mmproj-F16.gguf": 10, "README.md": 1}
    selected = select(listing(files), source)
    assert {*PARTS, "mmproj-F16.gguf"} <= {file.path for file in selected.files}
    if named:
        assert selected.main == min(PARTS)
    for gone in PARTS:
        partial = {path: size for path, size in files.items() if path != gone}
        with pytest.raises(YibuError, match=r"00003|no file"):
            select(listing(partial), source)


def test_an_incomplete_quantization_is_not_chosen() -> None:
    files = {**dict(list(PARTS.items())[:2]), "big-Q8_0.gguf": 9000}
    selected = select(listing(files), Source("hf", REPO))
    assert [file.path for file in selected.files] == ["big-Q8_0.gguf"]
    assert "the only one that is complete" in selected.notes[0]


SHARDS = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]


def test_weights_whose_parts_are_not_all_listed_are_refused(machine: Machine, tiny: Source) -> None:
    for shards in (SHARDS[:2], SHARDS[1:]):
        machine.hub.repos[REPO] = {"config.json": b"{}", **dict.fromkeys(shards, b"x" * 5000)}
        with pytest.raises(
            VerificationError, match=r"does not list 1 of the model's files: model-0000"
        ):
            machine.store.pull(tiny)
    index = b'{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    machine.hub.repos[REPO] = {
        "model.safetensors.index.json": index,
        "one.safetensors": b"x" * 5000,
    }
    with pytest.raises(VerificationError, match=r"two\.safetensors \(named by model"):
        machine.store.pull(tiny)
    assert machine.hub.bodies(".safetensors") == 0
    # A second, whole set of weights is enough.
    machine.hub.repos[REPO] = {"pytorch_model-00001-of-00002.bin": b"x", "model.safetensors": b"y"}
    assert names(machine.store.pull(tiny)) == ["model.safetensors"]


def test_a_repository_of_both_kinds_is_taken_without_its_gguf_files() -> None:
    files = {"config.json": 1, "model.safetensors": 1000, "m-Q4_K_M.gguf": 10, "m-Q8_0.gguf": 20}
    selected = select(listing(files), Source("hf", REPO))
    assert [file.path for file in selected.files] == ["config.json", "model.safetensors"]
    assert "Q4_K_M" in selected.notes[0]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Qwen3-0.6B-Q8_0.gguf", "Q8_0"),
        ("qwen2.5-7b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("model.Q5_K_S.gguf", "Q5_K_S"),
        ("UD-IQ2_XXS/DeepSeek-R1-UD-IQ2_XXS-00001-of-00004", "UD-IQ2_XXS"),
        ("BF16/DeepSeek-R1", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Llama-3.2-1B-Instruct-fp16.gguf", "F16"),
        ("q4_0-model.gguf", "Q4_0"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("SmolLM2-135M-Instruct.gguf", ""),
    ],
)
def test_labels(path: str, label: str) -> None:
    assert quantization.label_of(path) == label


def test_the_projector_beside_a_file_of_the_users(machine: Machine, tmp_path: Path) -> None:
    for name in ("m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-F16.gguf", "m-mmproj-BF16.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    model = machine.store.pull(Source("local", str(tmp_path / "m-Q8_0.gguf")))
    assert model.projector == tmp_path / "mmproj-m-F16.gguf"
    (tmp_path / "other-Q4_0.gguf").write_bytes(b"GGUF")  # now it may be the other's
    model = machine.store.pull(Source("local", str(tmp_path / "m-Q8_0.gguf")))
    assert model.projector is None
    folder = machine.store.pull(Source("local", str(tmp_path)))
    assert folder.projector == tmp_path / "mmproj-m-F16.gguf"

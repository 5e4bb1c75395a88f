"""Machines that are only described."""

from __future__ import annotations

from pathlib import Path

import pytest

from yibu.errors import ConfigError, UsageError
from yibu.planner.machine_file import BUILT_IN, EXAMPLE, load_machine, parse_machine

GIB = 1 << 30


def test_built_in_by_name() -> None:
    machine = load_machine("2x24g")
    assert [gpu.index for gpu in machine.gpus] == [0, 1]
    assert all(gpu.free == gpu.total for gpu in machine.gpus)
    for name, machine in BUILT_IN.items():
        assert machine.name == name
        assert machine.memory_available <= machine.memory_total


@pytest.mark.parametrize(
    ("spec", "count", "gib", "capability"),
    [
        ("rtx3060", 1, 12, (8, 6)),
        ("2xrtx4090", 2, 23.99, (8, 9)),
        ("RTX5090", 1, 31.84, (12, 0)),
        ("8xh20", 8, 95.58, (9, 0)),
        ("a800-80g", 1, 80, (8, 0)),
        ("l20", 1, 44.99, (8, 9)),
        ("8xascend-910b", 8, 64, None),
        ("ascend-910b4", 1, 32, None),
    ],
)
def test_cards_by_name(
    spec: str, count: int, gib: float, capability: tuple[int, int] | None
) -> None:
    machine = load_machine(spec)
    assert [gpu.index for gpu in machine.gpus] == list(range(count))
    assert machine.gpus[0].total / GIB == pytest.approx(gib, abs=0.01)
    assert machine.gpus[0].compute_capability == capability
    assert machine.memory_total >= 2 * sum(gpu.total for gpu in machine.gpus)


@pytest.mark.parametrize(("spec", "near"), [("rtx490", "rtx4090"), ("8xh2o", "h20")])
def test_a_card_that_is_misspelt(spec: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_machine(spec)
    assert near in caught.value.hint


def test_the_example_is_a_machine(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(EXAMPLE)
    machine = load_machine(str(path))
    assert (machine.cores, machine.memory_total) == (32, 256 * GIB)
    assert [(g.name, g.total, g.compute_capability) for g in machine.gpus] == [
        ("RTX 4090", 24 * GIB, (8, 9))
    ] * 2


def test_several_kinds_of_gpus_are_numbered_through() -> None:
    machine = parse_machine(
        {
            "cores": 8,
            "memory": "64G",
            "gpus": [{"memory": "24GiB", "count": 2}, {"memory": "80GiB", "free": "10GiB"}],
        },
        "x.yaml",
    )
    assert [gpu.index for gpu in machine.gpus] == [0, 1, 2]
    assert machine.gpus[2].free == 10 * GIB


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "x.yaml: expected an object, found []"),
        ({"cores": 8}, "x.yaml: memory: is missing"),
        ({"cores": 0, "memory": "8GiB"}, "cores: expected more than 0, found 0"),
        (
            {"cores": 8, "memory": "lots"},
            "memory: 'lots' is not a size; write a number with a unit, such as 6GiB",
        ),
        ({"core": 8, "memory": "8GiB"}, "unknown key 'core'"),
        ({"cores": 8, "memory": "8GiB", "gpus": {"memory": "8GiB"}}, "gpus: expected an array"),
        ({"cores": 8, "memory": "8GiB", "gpus": [{"memory": "8GiB", "count": 5000}]}, "more than"),
        (
            {"cores": 8, "memory": "8GiB", "gpus": [{"memory": "8GiB", "compute_capability": "x"}]},
            "gpus.0.compute_capability: 8.9, say, was expected, found 'x'",
        ),
    ],
)
def test_wrong_files(content: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_machine(content, "x.yaml")
    assert words in str(caught.value)


def test_neither_a_name_nor_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor one of") as caught:
        load_machine("2x24gb")
    assert "2x24g" in caught.value.hint
    path = tmp_path / "m.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load_machine(str(path))


@pytest.mark.parametrize(
    ("spec", "near"),
    [("4xh200x", "4xh20"), ("rtx409", "rtx4090"), ("8x80", "8x80g"), ("a100-80", "a100-80g")],
)
def test_a_machine_that_is_none_is_answered_with_the_nearest(spec: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_machine(spec)
    assert near in caught.value.hint
    assert len(str(caught.value)) < 500

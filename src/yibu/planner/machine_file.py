"""``--machine``: a machine that is only described, for sizing hardware before buying it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from yibu.errors import ConfigError, UsageError
from yibu.messages import tr
from yibu.planner.arithmetic import GIB, MIB
from yibu.planner.cards import CARDS, machine_of
from yibu.planner.types import Gpu, Machine
from yibu.units import parse_size

EXAMPLE = """\
name: a server with two cards
cores: 32
memory: 256GiB
gpus:
  - {name: RTX 4090, memory: 24GiB, compute_capability: 8.9, count: 2}
"""

_MACHINE_KEYS = frozenset(
    {
        "name",
        "cores",
        "threads",
        "memory",
        "memory_available",
        "gpus",
        "numa_nodes",
        "arch",
        "system",
    }
)
_GPU_KEYS = frozenset({"name", "memory", "free", "compute_capability", "driver", "count"})
_MAX_GPUS = 1024


def _gpus(count: int, name: str, mib: int, capability: tuple[int, int]) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(index, name, mib * MIB, mib * MIB, compute_capability=capability)
        for index in range(count)
    )


# name: cores, threads, GiB of memory, GPUs. The GPUs' memory is what their driver reports.
BUILT_IN: Mapping[str, Machine] = {
    name: Machine(name, cores, threads, gib * GIB, gib * GIB * 9 // 10, gpus)
    for name, cores, threads, gib, gpus in (
        ("laptop-16g", 8, 16, 16, ()),
        ("workstation-64g", 16, 32, 64, ()),
        ("rtx3070-8g", 8, 16, 32, _gpus(1, "RTX 3070", 8_192, (8, 6))),
        ("t4-16g", 8, 16, 64, _gpus(1, "Tesla T4", 15_360, (7, 5))),
        ("rtx4090-24g", 16, 32, 64, _gpus(1, "RTX 4090", 24_564, (8, 9))),
        ("2x24g", 16, 32, 128, _gpus(2, "RTX 4090", 24_564, (8, 9))),
        ("l40s-48g", 32, 64, 256, _gpus(1, "L40S", 46_068, (8, 9))),
        ("1x80g", 32, 64, 256, _gpus(1, "A100 80GB", 81_920, (8, 0))),
        ("4x80g", 64, 128, 1024, _gpus(4, "A100 80GB", 81_920, (8, 0))),
        ("8x80g", 96, 192, 2048, _gpus(8, "H100 80GB", 81_559, (9, 0))),
        ("8x141g", 96, 192, 2048, _gpus(8, "H200", 143_771, (9, 0))),
    )
}
"""Machines by name, with nothing else running on them."""


def load_machine(spec: str) -> Machine:
    """A built-in machine by its name, one with some cards (``4xh20``), or one from a YAML file.

    Raises:
        UsageError: Neither a built-in name nor a file.
        ConfigError: The file holds something that cannot be used.
    """
    if spec in BUILT_IN:
        return BUILT_IN[spec]
    path = Path(spec).expanduser()
    if not path.is_file():
        if (described := machine_of(spec)) is not None:
            return described
        bare = spec.lower().partition("x")[2] if spec[:1].isdigit() else spec.lower()
        near = difflib.get_close_matches(spec, BUILT_IN) + [
            f"{spec[: -len(bare)]}{card}" for card in difflib.get_close_matches(bare, CARDS)
        ]
        raise UsageError(
            tr(
                "no machine {spec!r}: it is neither a file nor one of {machines}, nor cards, such as "
                "rtx4090, or 4xh20 for four",
                spec=spec,
                machines=", ".join(BUILT_IN),
            ),
            hint=tr("did you mean {near}?", near=", ".join(near[:3]))
            if near
            else tr("write a file such as:\n{example}", example=EXAMPLE),
        )
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(tr("{path} is not YAML: {error}", path=path, error=error)) from error
    return parse_machine(content, str(path))


def parse_machine(content: Any, where: str) -> Machine:
    """Turn a machine file's content into a Machine.

    Args:
        where: What error messages call the file.

    Raises:
        ConfigError: A key is unknown, missing, or has a value of the wrong kind.
    """
    fields = _mapping(content, where, _MACHINE_KEYS)
    total = _bytes(fields.get("memory"), f"{where}: memory")
    cores = _count(fields.get("cores"), f"{where}: cores")
    listed = fields.get("gpus") or []
    if not isinstance(listed, list):
        raise ConfigError(
            tr(
                "{where}: gpus is a {name}; a list was expected",
                where=where,
                name=type(listed).__name__,
            )
        )
    gpus: list[Gpu] = []
    for entry in listed:
        gpus.extend(_read_gpus(entry, where, first=len(gpus)))
    available = fields.get("memory_available")
    return Machine(
        name=str(fields.get("name") or Path(where).stem),
        cores=cores,
        threads=_count(fields.get("threads", cores), f"{where}: threads"),
        memory_total=total,
        memory_available=(
            total * 9 // 10
            if available is None
            else _bytes(available, f"{where}: memory_available")
        ),
        gpus=tuple(gpus),
        numa_nodes=_count(fields.get("numa_nodes", 1), f"{where}: numa_nodes"),
        arch=str(fields.get("arch", "x86_64")),
        system=str(fields.get("system", "Linux")),
    )


def _read_gpus(entry: Any, where: str, first: int) -> list[Gpu]:
    fields = _mapping(entry, f"{where}: gpus", _GPU_KEYS)
    total = _bytes(fields.get("memory"), f"{where}: gpus: memory")
    free = fields.get("free")
    count = _count(fields.get("count", 1), f"{where}: gpus: count")
    if first + count > _MAX_GPUS:
        raise ConfigError(
            tr("{where}: more than {max_gpus} GPUs in one machine", where=where, max_gpus=_MAX_GPUS)
        )
    gpu = Gpu(
        index=0,
        name=str(fields.get("name") or "GPU"),
        total=total,
        free=total if free is None else min(total, _bytes(free, f"{where}: gpus: free")),
        compute_capability=_capability(fields.get("compute_capability"), where),
        driver=str(fields["driver"]) if fields.get("driver") else None,
    )
    return [
        Gpu(first + i, gpu.name, gpu.total, gpu.free, gpu.compute_capability, gpu.driver)
        for i in range(count)
    ]


def _capability(value: Any, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    major, _, minor = str(value).partition(".")
    if not (major.isdigit() and (minor or "0").isdigit()):
        raise ConfigError(
            tr(
                "{where}: compute_capability is {value!r}; 8.9, say, was expected",
                where=where,
                value=value,
            )
        )
    return int(major), int(minor or 0)


def _mapping(value: Any, where: str, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(
            tr(
                "{where} holds a {name}; a mapping was expected",
                where=where,
                name=type(value).__name__,
            ),
            hint=tr("for example:\n{example}", example=EXAMPLE),
        )
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ConfigError(
                tr("{where}: unknown key {key!r}", where=where, key=key),
                hint=tr("did you mean {near}?", near=near[0])
                if near
                else tr("known: {names}", names=", ".join(sorted(known))),
            )
    return value


def _bytes(value: Any, what: str) -> int:
    try:
        size = parse_size(str(value))
    except ValueError:
        size = 0
    if not 0 < size < 1 << 60:
        raise ConfigError(
            tr("{what} is {value!r}; a size such as 24GiB was expected", what=what, value=value)
        )
    return size


def _count(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 20:
        raise ConfigError(
            tr("{what} is {value!r}; a whole number above 0 was expected", what=what, value=value)
        )
    return value

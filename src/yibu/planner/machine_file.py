"""``--machine``: a described machine, for sizing hardware before buying it."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from yibu.config.schema import Size
from yibu.errors import ConfigError, UsageError
from yibu.messages import tr
from yibu.messages.validation import complaint
from yibu.paths import at_home
from yibu.planner.arithmetic import GIB
from yibu.planner.types import Gpu, Machine

_MIB, _GIB = 1 << 20, 1 << 30
MOST = 1024
"""GPUs of one machine."""
_COUNTED = re.compile(r"^(?:(\d{1,4})x)?([a-z0-9-]+)$")


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    mib: int
    capability: tuple[int, int] | None = None
    """CUDA's; None for what is no NVIDIA card."""


def _cards() -> Iterator[tuple[str, Card]]:
    table = tomllib.loads(files("yibu.planner").joinpath("cards.toml").read_text("utf-8"))
    for capability, rows in table.items():
        major, dot, minor = capability.partition(".")
        for key, (mib, name) in rows.items():
            yield key, Card(name, mib, (int(major), int(minor)) if dot else None)


CARDS: Mapping[str, Card] = dict(_cards())


def cards(key: str, count: int = 1) -> tuple[Gpu, ...]:
    """So many of a card, all of their memory free."""
    card = CARDS[key]
    return tuple(
        Gpu(index, card.name, card.mib * _MIB, card.mib * _MIB, compute_capability=card.capability)
        for index in range(count)
    )


def machine_of(spec: str) -> Machine | None:
    """A machine with ``[Nx]CARD``; None where the name is no card's.

    Its processor and memory are those that such cards are usually sold with: eight cores a card,
    sixteen at least, and twice the cards' memory.
    """
    match = _COUNTED.match(spec.lower().replace("_", "-"))
    card = CARDS.get(match[2]) if match else None
    if match is None or card is None:
        return None
    count = int(match[1] or 1)
    if not 0 < count <= MOST:
        return None
    cores = max(16, 8 * count)
    memory = max(32 * _GIB, 2 * count * card.mib * _MIB)
    return Machine(spec, cores, 2 * cores, memory, memory * 9 // 10, cards(match[2], count))


EXAMPLE = """\
name: a server with two cards
cores: 32
memory: 256GiB
gpus:
  - {name: RTX 4090, memory: 24GiB, compute_capability: 8.9, count: 2}
"""

# name: cores, threads, GiB of memory, GPUs. The GPUs' memory is what their driver reports.
BUILT_IN: Mapping[str, Machine] = {
    name: Machine(name, cores, threads, gib * GIB, gib * GIB * 9 // 10, gpus)
    for name, cores, threads, gib, gpus in (
        ("laptop-16g", 8, 16, 16, ()),
        ("workstation-64g", 16, 32, 64, ()),
        ("rtx3070-8g", 8, 16, 32, cards("rtx3070")),
        ("t4-16g", 8, 16, 64, cards("t4")),
        ("rtx4090-24g", 16, 32, 64, cards("rtx4090")),
        ("2x24g", 16, 32, 128, cards("rtx4090", 2)),
        ("l40s-48g", 32, 64, 256, cards("l40s")),
        ("1x80g", 32, 64, 256, cards("a100-80g")),
        ("4x80g", 64, 128, 1024, cards("a100-80g", 4)),
        ("8x80g", 96, 192, 2048, cards("h100", 8)),
        ("8x141g", 96, 192, 2048, cards("h200", 8)),
    )
}
"""Machines by name, with nothing else running on them."""


def _capability(value: object) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)(?:\.(\d+))?", str(value), re.ASCII)
    if found is None:
        raise ValueError(tr("8.9, say, was expected"))
    return int(found[1]), int(found[2] or 0)


_Count = Annotated[int, Field(strict=True, gt=0, lt=1 << 20)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: Any) -> Any:
        """A key that has no value counts as left out."""
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None}


class _Gpus(_Part):
    """GPUs of one kind."""

    name: str = "GPU"
    memory: Size
    free: Size | None = None
    compute_capability: Annotated[tuple[int, int], BeforeValidator(_capability)] | None = None
    driver: str | None = None
    count: _Count = 1


class _Described(_Part):
    """The schema of a machine file."""

    name: str = ""
    cores: _Count
    """Physical ones."""
    threads: _Count | None = None
    memory: Size
    memory_available: Size | None = None
    gpus: list[_Gpus] = []
    numa_nodes: _Count = 1
    arch: str = "x86_64"
    system: str = "Linux"


def load_machine(spec: str) -> Machine:
    """A built-in machine by its name, one with some cards (``4xh20``), or one from a YAML file.

    Raises:
        UsageError: Neither a built-in name nor a file.
        ConfigError: The file holds something that cannot be used.
    """
    if spec in BUILT_IN:
        return BUILT_IN[spec]
    path = at_home(spec)
    if not path.is_file():
        if (described := machine_of(spec)) is not None:
            return described
        bare = spec.lower().partition("x")[2] if spec[:1].isdigit() else spec.lower()
        near = difflib.get_close_matches(spec, BUILT_IN) + [
            f"{spec[: -len(bare)]}{card}" for card in difflib.get_close_matches(bare, CARDS)
        ]
        raise UsageError(
            "no machine {spec!r}: it is neither a file nor one of {machines}, nor cards, such as "
            "rtx4090, or 4xh20 for four",
            spec=spec,
            machines=", ".join(BUILT_IN),
            hint=tr("Did you mean {near}?", near=", ".join(near[:3]))
            if near
            else tr("Write a file such as:\n{example}", example=EXAMPLE),
        )
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError("{path} is not YAML: {error}", path=path, error=error) from error
    return parse_machine(content, str(path))


def parse_machine(content: Any, where: str) -> Machine:
    """Turn a machine file's content into a Machine.

    Args:
        where: What error messages call the file.

    Raises:
        ConfigError: A key is unknown, missing, or has a value of the wrong kind.
    """
    try:
        read = _Described.model_validate(content)
    except ValidationError as error:
        # A key that is misspelt is what the one that is missing was meant to be.
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise _refusal(first, where) from error
    kinds = [kind for kind in read.gpus for _ in range(min(kind.count, MOST + 1))]
    if len(kinds) > MOST:
        raise ConfigError(
            "{where}: more than {max_gpus} GPUs in one machine", where=where, max_gpus=MOST
        )
    return Machine(
        name=read.name or Path(where).stem,
        cores=read.cores,
        threads=read.threads or read.cores,
        memory_total=read.memory,
        memory_available=read.memory_available or read.memory * 9 // 10,
        gpus=tuple(
            Gpu(
                index,
                kind.name,
                kind.memory,
                min(kind.memory, kind.free or kind.memory),
                kind.compute_capability,
                kind.driver,
            )
            for index, kind in enumerate(kinds)
        ),
        numa_nodes=read.numa_nodes,
        arch=read.arch,
        system=read.system,
    )


def _refusal(fault: Any, where: str) -> ConfigError:
    """What is wrong with one value; an unknown key is answered with the nearest known one."""
    at = fault["loc"]
    if fault["type"] == "extra_forbidden":
        known = sorted((_Gpus if at[0] == "gpus" else _Described).model_fields)
        near = difflib.get_close_matches(str(at[-1]), known, n=1)
        return ConfigError(
            "{where}: unknown key {key!r}",
            where=where,
            key=at[-1],
            hint=tr("Did you mean {near}?", near=near[0])
            if near
            else tr("Known: {names}", names=", ".join(known)),
        )
    place = ": ".join([where, ".".join(map(str, at))] if at else [where])
    return ConfigError(
        "{place}: {what}",
        place=place,
        what=complaint([fault], repr(fault["input"])[:60]),
        example=EXAMPLE,
        hint="For example:\n{example}",
    )

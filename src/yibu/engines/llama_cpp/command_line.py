"""The command line of a llama-server other than the packaged build, by the flags that it reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yibu.config import ModelConfig
from yibu.engines.checks import check_count
from yibu.engines.flags import Flag, FlagTable, spelt
from yibu.engines.llama_cpp.program import Program
from yibu.engines.llama_cpp.server import SERVER
from yibu.engines.llama_cpp.settings import (
    FETCHED,
    LlamaCppSettings,
    fetches,
    option_value,
    value_of,
)
from yibu.engines.llama_cpp.table import ALL, FIELD_OPTIONS, NAMES, TABLE
from yibu.engines.options import nearest
from yibu.errors import ConfigError
from yibu.messages import tr
from yibu.planner.types import Offload, Placement

_OF_FLAG = {flag: option for option, flag in SERVER.options.items()}
_PLANNED = frozenset({"ctx_size", "n_cpu_moe", "cpu_moe", "tensor_split", "fit", "device"})
"""Flags whose values the plan decides, taking the user's into account."""
_MODES: Mapping[str, str] = {"mmap_mlock": "mmap+mlock", "direct_io": "dio"}


def table_of(program: Program) -> FlagTable:
    """The program's flags under the names that the known table has for them; what it alone knows has
    its own."""
    kinds: dict[str, str] = {}
    short: dict[str, str] = {}
    negations: dict[str, str] = {}
    for spelling, kind in program.flags.items():
        name, off = TABLE.name(spelling)
        if name not in TABLE.flags:
            negative = spelling.startswith("no_") and spelling[3:] in program.flags
            name, off = (spelling[3:], True) if negative else (spelling, False)
        if off:
            negations[spelling] = name
            continue
        kinds[name] = kind
        if spelling != name:
            short[spelling] = name
    return FlagTable(
        program.version,
        kinds,
        short,
        negations=negations,
        variables=TABLE.variables,
        strict=True,
        loose=TABLE.loose,
    )


def read_own(model: ModelConfig, program: Program, schema: Mapping[str, Any]) -> LlamaCppSettings:
    """Flags win over options.

    Raises:
        ConfigError: the program has no such flag, or it is not the engine's to be told here.
    """
    table, found = table_of(program), LlamaCppSettings()
    for option, value in model.options.items():
        name = option.lstrip("-").replace("-", "_")
        if name == "program":
            continue
        if name in schema:
            found.options[name] = option_value(name, value)
        elif name in FIELD_OPTIONS and FIELD_OPTIONS[name] in _OF_FLAG:
            own = _OF_FLAG[FIELD_OPTIONS[name]]
            found.options[own] = option_value(own, value)
        elif name not in FIELD_OPTIONS:
            for flag in table.of_options({name: value}):
                _apply(model, program, table, flag, found)
    for flag in table.read(model.flags):
        _apply(model, program, table, flag, found)
    return found


def _apply(
    model: ModelConfig, program: Program, table: FlagTable, flag: Flag, found: LlamaCppSettings
) -> None:
    name, who = flag.name, f"model {model.name!r}: {flag.words[0]}"
    SERVER.refuse(model.name, flag)
    if name in FETCHED:
        raise fetches(who)
    if name in _PLANNED:
        return
    if name in _OF_FLAG:
        own = _OF_FLAG[name]
        found.options[own] = option_value(own, value_of(flag))
    elif name == "chat_template":  # by name it needs --no-jinja
        found.options[name] = flag.values[0]
    elif name in SERVER.unused:
        found.notes.append(
            tr("{name}: left out, {reason}", name=spelt(name), reason=SERVER.unused[name])
        )
    elif name not in table.flags:
        near = nearest(name, [*table.flags, *table.short], cutoff=0.6)
        raise ConfigError(
            "{who}: {program_path} ({version}) has no such flag",
            who=who,
            program_path=program.path,
            version=program.version,
            hint=tr("Did you mean {near}?", near=spelt(near))
            if near
            else tr("See {program_path} --help", program_path=program.path),
        )
    else:
        check_count(who, flag, table, optional=table.loose)
        found.words += flag.words


def command_line(
    model: str, program: Program, fields: Mapping[str, Any], placement: Placement
) -> Iterator[str]:
    """Flags for what the plan sets, in the program's own spelling.

    Args:
        fields: As the packaged build's launcher would be given them.

    Raises:
        ConfigError: the program has no flag for an option.
    """
    for name, flag in NAMES["fields"].items():
        value = fields.get(name)
        if value is not None and program.knows(flag):
            yield from _words(program, flag, value)
        elif value is not None and name not in _DISPENSABLE:
            raise ConfigError(
                "model {model!r}: {program_path} ({version}) has no {flag}",
                model=model,
                program_path=program.path,
                version=program.version,
                flag=spelt(flag),
                hint="Leave that option out, or take a newer llama-server",
            )
    jinja = "jinja" if fields.get("use_jinja", True) else "no_jinja"
    for choices in (("metrics",), ("no_slots",), ("no_ui", "no_webui"), (jinja,)):
        yield from [spelt(flag) for flag in choices if program.knows(flag)][:1]
    yield from _mode(program, fields.get("load_mode"))
    yield from _offload(program, placement.offload)


_DISPENSABLE = frozenset(
    {"n_threads_http", "cpuparams_batch.n_threads", "cache_ram_mib", "kv_unified_per_slot"}
)
"""Flags of the plan that a program may lack."""


def _words(program: Program, flag: str, value: Any) -> Iterator[str]:
    if program.flags[flag] == "switch":
        if flag == "flash_attn":  # before it took a word
            value = value == "enabled"
        if value:
            yield spelt(flag)
        elif program.knows(f"no_{flag}"):
            yield spelt(f"no_{flag}")
        return
    words = {"enabled": "on", "disabled": "off"}
    text = words.get(value, value) if flag == "flash_attn" else value
    yield from (spelt(flag), str(text).replace("_legacy", "-legacy"))


def _mode(program: Program, mode: str | None) -> Iterator[str]:
    if mode is None:
        return
    if program.knows("load_mode"):
        yield from ("--load-mode", _MODES.get(mode, mode))
        return
    if mode in ("none", "mlock") and program.knows("no_mmap"):
        yield "--no-mmap"
    if "mlock" in mode and program.knows("mlock"):
        yield "--mlock"


def _offload(program: Program, offload: Offload | None) -> Iterator[str]:
    """Flags for the division among devices; without an offload all of it is on the CPU."""
    if offload is None:
        if program.devices:
            yield from ("--n-gpu-layers", "0")
            if program.knows("device"):
                yield from ("--device", "none")
        return
    layers = ALL if offload.gpu_layers == offload.layers else offload.gpu_layers
    yield from ("--n-gpu-layers", str(layers))
    if offload.cpu_moe and program.knows("n_cpu_moe"):
        yield from ("--n-cpu-moe", str(offload.cpu_moe))
    if offload.names and program.knows("device"):
        yield from ("--device", ",".join(offload.names))
    if len(offload.split) > 1:
        yield from ("--tensor-split", ",".join(map(str, offload.split)))
    if program.knows("fit"):  # it is fitted; llama.cpp's own try loads the model once more
        yield from ("--fit", "off")

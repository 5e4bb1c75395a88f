"""Print, as JSON, the flags and parsers that the vLLM of this environment has.

    python -m yibu.launchers.vllm_flags

It asks vLLM's own parser, which knows them without a GPU and without a model. The shape is
``yibu.engines.vllm.table.FlagTable``'s.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from typing import Any

# Where versions from 0.32 on keep things, then earlier ones.
_PARSERS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
_PARSER_CLASSES = ("vllm.utils.argparse_utils", "vllm.utils")
_SERVE = "vllm.entrypoints.cli.serve"
_TOOL_PARSERS = ("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers")


def kind(action: argparse.Action) -> str:
    """What follows the flag: ``switch`` nothing, ``value`` one word, ``values`` several words;
    ``repeat``: the flag is given again for each value."""
    if isinstance(action, argparse._AppendAction):  # noqa: SLF001 - no public name
        return "repeat"
    if action.nargs in ("+", "*"):
        return "values"
    return "switch" if action.nargs == 0 else "value"


_TYPES = {
    "int": "int",
    "float": "float",
    "human_readable_int": "size",
    "human_readable_int_or_auto": "size",
    "loads": "json",
    "_parse_type": "json",
    "parse_dataclass": "json",
}
"""Names of the functions that read a value → what they take; the others are vLLM's own affair."""


def read_table() -> dict[str, Any]:
    """Flags by name with underscores, other spellings, their values where those come from a list,
    and the parsers' names."""
    from importlib.metadata import version

    make_arg_parser = _first("make_arg_parser", _PARSERS)
    parser_class = _first("FlexibleArgumentParser", _PARSER_CLASSES)
    flags: dict[str, str] = {}
    short: dict[str, str] = {}
    choices: dict[str, list[str]] = {}
    types: dict[str, str] = {}
    for action in make_arg_parser(parser_class())._actions:  # noqa: SLF001 - no public name
        names = [option for option in action.option_strings if option.startswith("--")]
        names = [option for option in names if not option.startswith("--no-")] or names
        if not names:
            continue
        main_name = names[0].removeprefix("--").replace("-", "_")
        flags[main_name] = kind(action)
        if read := _TYPES.get(getattr(action.type, "__name__", "")):
            types[main_name] = read
        if action.choices is not None:
            choices[main_name] = [str(choice) for choice in action.choices if choice is not None]
        for other in action.option_strings:
            spelling = other.lstrip("-").replace("-", "_")
            if spelling not in (main_name, f"no_{main_name}"):
                short[spelling] = main_name
    return {
        "version": version("vllm").partition("+")[0],
        "flags": flags,
        "short": short,
        "choices": choices,
        "types": types,
        "serve": _has(_SERVE),
        "reasoning_parsers": _registered("ReasoningParserManager", ("vllm.reasoning",)),
        "tool_parsers": _registered("ToolParserManager", _TOOL_PARSERS),
    }


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there either
        return False


def _registered(manager: str, modules: Sequence[str]) -> list[str]:
    return sorted(_first(manager, modules).list_registered())


def _first(name: str, modules: Sequence[str]) -> Any:
    """``name`` from the first of the modules that this version has."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue  # another version keeps it elsewhere
    raise ImportError(f"no {name} in {', '.join(modules)}")


def main() -> None:
    # What vLLM says while it is imported must not stand in the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        table = read_table()
    print(json.dumps(table))


if __name__ == "__main__":
    main()

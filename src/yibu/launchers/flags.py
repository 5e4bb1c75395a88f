"""Print, as JSON, the flags of an engine's server in this environment's version.

    python -m yibu.launchers.flags ENGINE

It asks the server's own parser, which knows them without a GPU and without a model. The shape is that of
``yibu.engines.flags.FlagTable.from_plain``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

# Where vLLM keeps things from 0.32 on, then earlier.
_VLLM_PARSERS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
_VLLM_PARSER_CLASSES = ("vllm.utils.argparse_utils", "vllm.utils")
_VLLM_TOOL_PARSERS = ("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers")
_VLLM_TYPES = {
    "int": "int",
    "float": "float",
    "human_readable_int": "size",
    "human_readable_int_or_auto": "size",
    "loads": "json",
    "_parse_type": "json",
    "parse_dataclass": "json",
}
"""Names of the functions that read a value → what they take; the others are vLLM's own affair."""


@dataclass(frozen=True)
class EngineServer:
    """What an engine's own code says about its server's flags."""

    parser: argparse.ArgumentParser
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values of flags that the parser leaves open."""
    types: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else the engine's table has."""


def vllm() -> EngineServer:
    reasoning = _first("ReasoningParserManager", ("vllm.reasoning",)).list_registered()
    tools = _first("ToolParserManager", _VLLM_TOOL_PARSERS).list_registered()
    parser = _first("make_arg_parser", _VLLM_PARSERS)(
        _first("FlexibleArgumentParser", _VLLM_PARSER_CLASSES)()
    )
    lists = {"reasoning_parser": reasoning, "tool_call_parser": tools}
    return EngineServer(parser, lists, _VLLM_TYPES, {"serve": _has("vllm.entrypoints.cli.serve")})


def sglang() -> EngineServer:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return EngineServer(parser)


def lmdeploy() -> EngineServer:
    from lmdeploy.cli.serve import SubCliServe
    from lmdeploy.serve.parsers.reasoning_parser import (
        LEGACY_REASONING_PARSER_NAMES,
        ReasoningParserManager,
    )
    from lmdeploy.serve.parsers.tool_parser import ToolParserManager

    SubCliServe.add_parser_api_server()
    reasoning = [*ReasoningParserManager.module_dict, *LEGACY_REASONING_PARSER_NAMES]
    lists = {"reasoning_parser": reasoning, "tool_call_parser": list(ToolParserManager.module_dict)}
    return EngineServer(SubCliServe.subparsers.choices["api_server"], lists)


SERVERS: Mapping[str, Callable[[], EngineServer]] = {
    "vllm": vllm,
    "sglang": sglang,
    "lmdeploy": lmdeploy,
}


def read_table(engine: str) -> dict[str, Any]:
    """Version, kinds of flags by name, other spellings, negations, values from lists, and types."""
    server = SERVERS[engine]()
    flags: dict[str, str] = {}
    short: dict[str, str] = {}
    negations: dict[str, str] = {}
    choices = {name: sorted(words) for name, words in server.lists.items()}
    types: dict[str, str] = {}
    for action in server.parser._actions:  # noqa: SLF001 - argparse has no public list
        names = [_plain(one) for one in action.option_strings if one.startswith("--")]
        names = [name for name in names if not name.startswith("no_")] or names
        if not names:
            continue
        flags[names[0]] = kind(action)
        others = {_plain(one) for one in action.option_strings} - {names[0]}
        off = {f"no_{name}" for name in names}
        negations |= dict.fromkeys(sorted(others & off), names[0])
        short |= dict.fromkeys(sorted(others - off), names[0])
        if read := server.types.get(getattr(action.type, "__name__", "")):
            types[names[0]] = read
        if action.choices is not None:
            choices[names[0]] = [str(one) for one in action.choices if one is not None]
    return {
        "version": version(engine).partition("+")[0],
        "flags": flags,
        "short": short,
        "negations": negations,
        "choices": choices,
        "types": types,
        **server.more,
    }


def kind(action: argparse.Action) -> str:
    """What follows the flag: ``switch`` nothing, ``value`` one word, ``values`` several words;
    ``repeat``: the flag is given again for each value."""
    if isinstance(action, argparse._AppendAction):  # noqa: SLF001 - no public name
        return "repeat"
    if action.nargs in ("+", "*"):
        return "values"
    return "switch" if action.nargs == 0 else "value"


def _plain(spelling: str) -> str:
    return spelling.lstrip("-").replace("-", "_")


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there either
        return False


def _first(name: str, modules: Sequence[str]) -> Any:
    """``name`` from the first of the modules that this version has."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue  # another version keeps it elsewhere
    raise ImportError(f"no {name} in {', '.join(modules)}")


def main() -> None:
    # What an engine says while it is imported must not stand in the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        table = read_table(sys.argv[1])
    print(json.dumps(table))


if __name__ == "__main__":
    main()

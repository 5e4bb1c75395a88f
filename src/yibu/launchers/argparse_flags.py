"""The flags of servers whose parser is argparse's, read from the parser of the version at hand.

    python -m yibu.launchers.sglang_flags
    python -m yibu.launchers.lmdeploy_flags

print them as JSON, in the shape of ``yibu.engines.flags.FlagTable.from_plain``. A parser knows them
without a GPU and without a model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from yibu.launchers.vllm_flags import kind

Reader = Callable[[], tuple[argparse.ArgumentParser, Mapping[str, Sequence[str]]]]
"""Returns a server's parser, and the values of flags that its parser leaves open."""


def sglang() -> tuple[argparse.ArgumentParser, Mapping[str, Sequence[str]]]:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return parser, {}


def lmdeploy() -> tuple[argparse.ArgumentParser, Mapping[str, Sequence[str]]]:
    from lmdeploy.cli.serve import SubCliServe
    from lmdeploy.serve.parsers.reasoning_parser import (
        LEGACY_REASONING_PARSER_NAMES,
        ReasoningParserManager,
    )
    from lmdeploy.serve.parsers.tool_parser import ToolParserManager

    SubCliServe.add_parser_api_server()
    reasoning = [*ReasoningParserManager.module_dict, *LEGACY_REASONING_PARSER_NAMES]
    names = {"reasoning_parser": reasoning, "tool_call_parser": list(ToolParserManager.module_dict)}
    return SubCliServe.subparsers.choices["api_server"], names


READERS: Mapping[str, Reader] = {"sglang": sglang, "lmdeploy": lmdeploy}


def read_table(engine: str) -> dict[str, Any]:
    """Version, kinds of flags by name, other spellings, negations, and values from lists."""
    parser, lists = READERS[engine]()
    table: dict[str, Any] = {"version": version(engine), "flags": {}, "short": {}, "negations": {}}
    choices = {name: sorted(words) for name, words in lists.items()}
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        if not action.option_strings:
            continue
        name, *_ = names = [_plain(one) for one in action.option_strings if one.startswith("--")]
        others = [_plain(one) for one in action.option_strings if _plain(one) != name]
        off = {f"no_{one}" for one in names}
        table["flags"][name] = kind(action)
        table["negations"] |= {one: name for one in others if one in off}
        table["short"] |= {one: name for one in others if one not in off}
        if action.choices is not None:
            choices[name] = sorted(str(one) for one in action.choices if one is not None)
    return {**table, "choices": choices}


def print_table(engine: str) -> None:
    # What an engine says while it is imported must not stand in the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        table = read_table(engine)
    print(json.dumps(table))


def _plain(spelling: str) -> str:
    return spelling.lstrip("-").replace("-", "_")

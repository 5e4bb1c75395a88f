"""Write src/yibu/engines/ENGINE/flags.py from the parser of an engine's own server.

Run it after the engine's pin has changed, with an interpreter that can import the pinned version:

    $ENVIRONMENT/bin/python scripts/argparse_flags.py sglang
    $ENVIRONMENT/bin/python scripts/argparse_flags.py lmdeploy
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from yibu.launchers.vllm_flags import kind

ENGINES = Path(__file__).parents[1] / "src/yibu/engines"

HEADER = '''"""The flags of {title}'s OpenAI server, as its pinned version has them.

Written by scripts/argparse_flags.py; do not edit. ``SWITCH`` flags take no value, ``VALUE`` flags one
and ``VALUES`` flags several. ``SHORT`` has the other spellings, ``NEGATIONS`` those that turn a switch
off, and ``CHOICES`` the values of flags that take theirs from a list.
"""

VERSION = "{version}"

'''


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


READERS: Mapping[
    str, tuple[str, Callable[[], tuple[argparse.ArgumentParser, Mapping[str, Sequence[str]]]]]
] = {"sglang": ("SGLang", sglang), "lmdeploy": ("LMDeploy", lmdeploy)}


def plain(spelling: str) -> str:
    return spelling.lstrip("-").replace("-", "_")


def main(engine: str) -> None:
    title, read = READERS[engine]
    parser, lists = read()
    flags: dict[str, list[str]] = {"switch": [], "value": [], "values": []}
    short: dict[str, list[str]] = {}
    negations: dict[str, list[str]] = {}
    values = {name: sorted(words) for name, words in lists.items()}
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        if not action.option_strings:
            continue
        names = [plain(one) for one in action.option_strings if one.startswith("--")]
        others = [plain(one) for one in action.option_strings if plain(one) != names[0]]
        flags[kind(action)].append(names[0])
        off = {f"no_{one}" for one in names}
        if found := [one for one in others if one in off]:
            negations[names[0]] = found
        if found := [one for one in others if one not in off]:
            short[names[0]] = found
        if action.choices is not None:
            values[names[0]] = sorted(str(one) for one in action.choices if one is not None)
    parts = [block(name.upper(), " ".join(sorted(found))) for name, found in flags.items()]
    parts += [
        block(name, "; ".join(f"{flag}: {' '.join(words)}" for flag, words in sorted(rows.items())))
        for name, rows in (("SHORT", short), ("NEGATIONS", negations), ("CHOICES", values))
    ]
    header = HEADER.format(title=title, version=version(engine))
    target = ENGINES / engine / "flags.py"
    target.write_text(header + "\n".join(parts), encoding="utf-8")


def block(name: str, text: str) -> str:
    """A string of several lines; a row ends with a semicolon."""
    lines = "\n".join(textwrap.wrap(text, 98, break_long_words=False, break_on_hyphens=False))
    return f'{name} = """\n{lines}\n"""\n'


if __name__ == "__main__":
    main(sys.argv[1])

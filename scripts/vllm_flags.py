"""Write src/yibu/engines/vllm_flags.py from the installed vLLM's own parser.

Run it with the vllm environment's interpreter after its pin has changed:

    $ENVIRONMENT/bin/python scripts/vllm_flags.py
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

TARGET = Path(__file__).parents[1] / "src/yibu/engines/vllm_flags.py"

HEADER = '''"""The flags of vLLM's OpenAI server, as version {version} has them.

Written by scripts/vllm_flags.py; do not edit. The kinds: ``switch`` takes no value (and has a
``--no-`` form), ``value`` takes one, ``values`` takes several after one flag, ``repeat`` is given
again for each value. ``SHORT`` maps the other spellings. The parsers are those that
``--reasoning-parser`` and ``--tool-call-parser`` may name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

'''


def kind(action: argparse.Action) -> str:
    if isinstance(action, argparse._AppendAction):  # noqa: SLF001 - no public name
        return "repeat"
    if action.nargs in ("+", "*"):
        return "values"
    return "switch" if action.nargs == 0 else "value"


def mapping(name: str, values: dict[str, str]) -> str:
    lines = "\n".join(f'        "{key}": "{values[key]}",' for key in sorted(values))
    return f"{name}: Mapping[str, str] = MappingProxyType(\n    {{\n{lines}\n    }}\n)\n"


def word_set(name: str, values: list[str]) -> str:
    lines = "\n".join(f'        "{value}",' for value in sorted(values))
    return f"{name}: frozenset[str] = frozenset(\n    {{\n{lines}\n    }}\n)\n"


def main() -> None:
    parser = make_arg_parser(FlexibleArgumentParser())
    flags: dict[str, str] = {}
    short: dict[str, str] = {}
    for action in parser._actions:  # noqa: SLF001 - no public name
        names = [option for option in action.option_strings if option.startswith("--")]
        names = [option for option in names if not option.startswith("--no-")] or names
        if not names:
            continue
        main_name = names[0].removeprefix("--").replace("-", "_")
        flags[main_name] = kind(action)
        for other in action.option_strings:
            spelling = other.lstrip("-").replace("-", "_")
            if spelling != main_name and spelling != f"no_{main_name}":
                short[spelling] = main_name
    TARGET.write_text(
        HEADER.format(version=version("vllm").partition("+")[0])
        + mapping("FLAGS", flags)
        + "\n"
        + mapping("SHORT", short)
        + "\n"
        + word_set("REASONING_PARSERS", ReasoningParserManager.list_registered())
        + "\n"
        + word_set("TOOL_PARSERS", ToolParserManager.list_registered()),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()

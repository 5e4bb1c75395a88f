"""Write src/yibu/engines/vllm/flags.py from the installed vLLM's own parser.

Run it with the vllm environment's interpreter after its pin has changed:

    $ENVIRONMENT/bin/python scripts/vllm_flags.py
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from yibu.launchers.vllm_flags import read_table

TARGET = Path(__file__).parents[1] / "src/yibu/engines/vllm/flags.py"

HEADER = '''"""The flags of vLLM's OpenAI server, as its pinned version has them.

Written by scripts/vllm_flags.py; do not edit. The kinds: ``switch`` takes no value (and has a
``--no-`` form), ``value`` takes one, ``values`` takes several after one flag, ``repeat`` is given
again for each value. ``SHORT`` maps the other spellings. ``CHOICES`` has, separated by spaces, the
values of flags that take theirs from a list; ``TYPES`` those whose values are ``int``, ``float``,
``size`` (a whole number that may have a unit) or ``json``. The parsers are those that
``--reasoning-parser`` and ``--tool-call-parser`` may name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

VERSION = "{version}"
SERVE = {serve}
"""Whether it has ``vllm serve``."""

'''


def mapping(name: str, values: Mapping[str, str]) -> str:
    lines = "\n".join(f'        "{key}": "{values[key]}",' for key in sorted(values))
    return f"{name}: Mapping[str, str] = MappingProxyType(\n    {{\n{lines}\n    }}\n)\n"


def choices(name: str, values: Mapping[str, Sequence[str]]) -> str:
    lines = []
    for key in sorted(values):
        wrapped = textwrap.wrap(" ".join(values[key]), 80, drop_whitespace=False)
        lines += (
            [f'        "{key}": ('] + [f'            "{line}"' for line in wrapped] + ["        ),"]
        )
    return (
        f"{name}: Mapping[str, str] = MappingProxyType(\n    {{\n"
        + "\n".join(lines)
        + "\n    }\n)\n"
    )


def word_set(name: str, values: Iterable[str]) -> str:
    lines = "\n".join(f'        "{value}",' for value in sorted(values))
    return f"{name}: frozenset[str] = frozenset(\n    {{\n{lines}\n    }}\n)\n"


def main() -> None:
    table = read_table()
    parts = [
        mapping("FLAGS", table["flags"]),
        mapping("SHORT", table["short"]),
        choices("CHOICES", table["choices"]),
        mapping("TYPES", table["types"]),
        word_set("REASONING_PARSERS", table["reasoning_parsers"]),
        word_set("TOOL_PARSERS", table["tool_parsers"]),
    ]
    header = HEADER.format(version=table["version"], serve=table["serve"])
    TARGET.write_text(header + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()

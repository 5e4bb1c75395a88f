"""Write src/yibu/engines/ENGINE/flags.py from the parser of an engine's own server.

Run it after the engine's pin has changed, with an interpreter that can import the pinned version:

    $ENVIRONMENT/bin/python scripts/argparse_flags.py sglang
    $ENVIRONMENT/bin/python scripts/argparse_flags.py lmdeploy
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from yibu.launchers.argparse_flags import read_table

ENGINES = Path(__file__).parents[1] / "src/yibu/engines"
TITLES = {"sglang": "SGLang", "lmdeploy": "LMDeploy"}

HEADER = '''"""The flags of {title}'s OpenAI server, as its pinned version has them.

Written by scripts/argparse_flags.py; do not edit. ``SWITCH`` flags take no value, ``VALUE`` flags one
and ``VALUES`` flags several. ``SHORT`` has the other spellings, ``NEGATIONS`` those that turn a switch
off, and ``CHOICES`` the values of flags that take theirs from a list.
"""

VERSION = "{version}"

'''


def main(engine: str) -> None:
    table = read_table(engine)
    kinds: dict[str, list[str]] = {"switch": [], "value": [], "values": []}
    for name, kind in table["flags"].items():
        kinds[kind].append(name)
    parts = [block(kind.upper(), " ".join(sorted(names))) for kind, names in kinds.items()]
    parts += [block(name.upper(), rows(by_name(table[name]))) for name in ("short", "negations")]
    parts.append(block("CHOICES", rows(table["choices"])))
    header = HEADER.format(title=TITLES[engine], version=table["version"])
    target = ENGINES / engine / "flags.py"
    target.write_text(header + "\n".join(parts), encoding="utf-8")


def by_name(spellings: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for spelling, name in spellings.items():
        found.setdefault(name, []).append(spelling)
    return found


def rows(values: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{name}: {' '.join(words)}" for name, words in sorted(values.items()))


def block(name: str, text: str) -> str:
    """A string of several lines; a row ends with a semicolon."""
    lines = "\n".join(textwrap.wrap(text, 98, break_long_words=False, break_on_hyphens=False))
    return f'{name} = """\n{lines}\n"""\n'


if __name__ == "__main__":
    main(sys.argv[1])

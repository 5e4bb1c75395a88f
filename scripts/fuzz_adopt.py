"""Hold the evaluation of random scripts against bash itself.

    python scripts/fuzz_adopt.py [SEED [COUNT]]

Prints how many were right, how many were refused, and every script that was read otherwise than bash ran
it; exits 1 if there was one. It takes about 0.3 s a script.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from record_bash import HOME, record

from yibu.adopt.bash import Setting, UnknownScriptError, read_commands
from yibu.adopt.servers import judge

NAMES = ("A", "B", "C", "PORT", "LIST")
WORDS = (
    "x", "--flag", "8000", "a\\ b", "'q $A r'", '"$V"', "$V", "${V}", '"${V:-def ault}"', "${V:-p q}",
    "${V:+set}", "${V-}", "$((3+4*2))", '"pre-$V-post"', "${V%.*}", "${V##*/}", "${#V}", "${V/a/ZZ}",
    '"${ARR[@]}"', '"${ARR[1]}"', "~/m", "k=$V", "${V^^}", '"$@"', "$*", "${ARR[*]}",
)  # fmt: skip
VALUES = (
    "1", "/m/model-7b.q4.gguf", '"two words"', '""', "$V", '"$V more"', "$(echo one)", "$((PORT+1))",
    "${V:-fallback}", "'single'", "pre$A", "$(basename /x/y.gguf .gguf)", "$(dirname /a/b/c)",
    "${V:=assigned}", "$(seq 1 3)",
)  # fmt: skip
CONDITIONS = (
    '[ -z "$V" ]', '[ -n "$V" ]', "[[ $V == x* ]]", '[ "$V" = "1" ]', "[[ -n $V && 1 -lt 2 ]]", "true",
    "false", '[[ "$V" =~ [0-9]+ ]]', "(( ${#ARR[@]} > 1 ))", '[ 3 -gt 2 -a -z "$V" ]', '! [ "$V" ]',
    'test "$V" != two',
)  # fmt: skip
PLAIN = ("unset V", "V+=z", 'ARR=(a "b c" d)', "((PORT+=2))", "let PORT=PORT+1", 'set -- p "q r"',
         "shift", "declare V=1", "readonly R=1", "cd sub")  # fmt: skip
SETTINGS = ("", 'B=bee/c.d\nC=1\nLIST="l1 l2"\n', 'B=b.c\nC=1\nLIST="l1 l2"\nset -- u "v w"\n')


class Writer:
    """Writes scripts."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def script(self) -> str:
        opening = '#!/bin/bash\nARR=(n1 "n 2")\nA=alpha.beta\nPORT=8000\nmkdir -p sub/sub\n'
        count = self._random.randrange(2, 7)
        return (
            opening
            + self._of(SETTINGS)
            + "\n".join(self._statement(0) for _ in range(count))
            + "\n"
        )

    def _of(self, choices: tuple[str, ...]) -> str:
        name = self._random.choice(NAMES)
        text = self._random.choice(choices)
        return text.replace("$V", "$" + name).replace("{V", "{" + name).replace("#V", "#" + name).replace(
            " V", " " + name).replace("V+", name + "+")  # fmt: skip

    def _words(self, most: int) -> str:
        return " ".join(self._of(WORDS) for _ in range(self._random.randrange(1, most)))

    def _body(self, depth: int) -> str:
        return "\n".join(self._statement(depth + 1) for _ in range(self._random.randrange(1, 3)))

    def _statement(self, depth: int) -> str:
        name, kind = self._random.choice(NAMES), self._random.randrange(17 if depth < 2 else 7)
        plain = {
            0: lambda: f"{name}={self._of(VALUES)}",
            1: lambda: f"export {name}={self._of(VALUES)}",
            2: lambda: f"vllm serve {self._words(5)}",
            3: lambda: f"vllm serve {self._words(3)}",
            4: lambda: f"ARR+=({self._words(3)})",
            5: lambda: self._of(PLAIN),
            6: lambda: f'{name}={self._of(VALUES)} vllm serve one-off "${name}"',
            7: lambda: (
                f"if {self._of(CONDITIONS)}; then\n{self._body(depth)}\n"
                f"elif {self._of(CONDITIONS)}; then\n{self._body(depth)}\nelse\n{self._body(depth)}\nfi"
            ),
            8: lambda: f"for {name} in {self._words(3)} {{1..2}}; do\n{self._body(depth)}\ndone",
            9: lambda: (
                f"f{depth}() {{\nlocal {name}={self._of(VALUES)}\n{self._body(depth)}\n}}\n"
                f"f{depth} {self._words(3)}"
            ),
            10: lambda: (
                f'case "${name}" in\n1|x*) {self._statement(2)} ;;\n*b*) {self._statement(2)} ;;\n'
                f"*) {self._statement(2)} ;;\nesac"
            ),
            11: lambda: f"{self._of(CONDITIONS)} && {self._statement(2)}",
            12: lambda: f"{self._of(CONDITIONS)} || {self._statement(2)}",
            13: lambda: f"(\n{self._body(depth)}\n)",
            14: lambda: "sh -c 'vllm serve inner $A'",
            15: lambda: f'bash -c "vllm serve inner ${name} \\$1" zero {self._of(WORDS)}',
            16: lambda: f"i=0\nwhile [ $i -lt 2 ]; do\n{self._statement(2)}\ni=$((i+1))\ndone",
        }
        return plain[kind]()


def evaluated(text: str) -> list[dict[str, Any]] | None:
    """The servers that the evaluation finds; None where it refuses."""
    setting = Setting({"HOME": HOME, "PWD": "/"}, {}, "start.sh")
    try:
        commands, _ = read_commands(text, setting, judge)
    except UnknownScriptError:
        return None
    return [
        {"argv": list(one.argv), "env": {"HOME": HOME, **one.env},
         "cwd": str(Path("/", one.directory)).rstrip("/")}
        for one in commands if one.argv[0] == "vllm"
    ]  # fmt: skip


def main() -> int:
    given = [int(word) for word in sys.argv[1:3]]
    seed, count = (*given, *(1, 100)[len(given) :])
    writer, right, refused, wrong = Writer(seed), 0, 0, 0
    for _ in range(count):
        text = writer.script()
        found = evaluated(text)
        if found is None:
            refused += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "start.sh")
            file.write_text(text)
            ran = record(file, [])
        if found == ran:
            right += 1
        else:
            wrong += 1
            print(f"--- read otherwise:\n{text}\nread: {found}\nbash: {ran}")
    print(f"seed {seed}: {right} right, {refused} refused, {wrong} read otherwise")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

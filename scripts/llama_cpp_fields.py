"""Write src/yibu/engines/llama_cpp/fields.json from the installed xllamacpp.

Run it with the llama.cpp environment's interpreter after its pin has changed:

    $ENVIRONMENT/bin/python scripts/llama_cpp_fields.py
"""

from __future__ import annotations

import enum
import json
from pathlib import Path

import xllamacpp

TARGET = Path(__file__).parents[1] / "src/yibu/engines/llama_cpp/fields.json"


def kind(value: object) -> str | None:
    if isinstance(value, enum.Enum):
        names = [member.name for member in type(value)]
        # The longest start that all members share, whole words only.
        prefix = names[0]
        while not all(name.startswith(prefix) for name in names) or not prefix.endswith("_"):
            prefix = prefix[:-1]
        words = " ".join(name.removeprefix(prefix).lower() for name in names)
        return f"<{type(value).__name__}: {words}>"
    for python in (bool, int, float, str, list, set, dict):
        if isinstance(value, python):
            return python.__name__
    return None


def fields(params: object, prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name in dir(params):
        if name.startswith("_"):
            continue
        value = getattr(params, name)
        if (simple := kind(value)) is not None:
            found[prefix + name] = simple
        elif not callable(value) and type(value).__module__.startswith("xllamacpp"):
            found |= fields(value, f"{prefix}{name}.")
    return found


def main() -> None:
    found = {"version": xllamacpp.__version__, "fields": fields(xllamacpp.CommonParams())}
    TARGET.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The console's texts: ``scripts/console_texts.py [--write]``.

A text's id is its English sentence, as ``t("…")`` has it in the page's code. The catalogues in
``src/yibu/console/locales`` hold them all, a file a language; ``--write`` adds what is missing and takes away what no
code has, and without it the differences are listed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CONSOLE = Path(__file__).parents[1] / "src/yibu/console"
LOCALES = CONSOLE / "locales"
_CALL = re.compile(r'\b(?:t|rich)\(\s*("(?:[^"\\]|\\.)*")')
_UNTRANSLATED = ""


def sources() -> list[Path]:
    """The page's own modules."""
    return sorted(one for one in CONSOLE.rglob("*.js") if "vendor" not in one.parts)


def ids() -> dict[str, list[str]]:
    """Every id in the code → the files that have it."""
    found: dict[str, list[str]] = {}
    for path in sources():
        for text in _CALL.findall(path.read_text("utf-8")):
            found.setdefault(json.loads(text), []).append(str(path.relative_to(CONSOLE)))
    return found


def catalogues() -> dict[str, dict[str, str | dict[str, str]]]:
    return {one.stem: json.loads(one.read_text("utf-8")) for one in sorted(LOCALES.glob("*.json"))}


def differences(catalogue: Mapping[str, object], wanted: Sequence[str]) -> Iterator[str]:
    for text in wanted:
        if not catalogue.get(text):
            yield f"no translation: {text}"
    for text in catalogue:
        if text not in wanted:
            yield f"nowhere in the code: {text}"


def main(arguments: Sequence[str]) -> int:
    wanted = sorted(ids())
    lines = []
    for language, catalogue in catalogues().items():
        if "--write" in arguments:
            default = {text: text for text in wanted} if language == "en" else {}
            catalogue = {
                text: catalogue.get(text) or default.get(text, _UNTRANSLATED) for text in wanted
            }
            text = json.dumps(catalogue, ensure_ascii=False, indent=1) + "\n"
            (LOCALES / f"{language}.json").write_text(text, "utf-8")
        lines += [f"{language}: {line}" for line in differences(catalogue, wanted)]
    print("\n".join(lines) or f"{len(wanted)} texts, in every language.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

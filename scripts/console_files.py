"""What follows from the console's code: ``scripts/console_files.py [--write]``.

A text's id is its English sentence, as ``t("…")`` has it in the page's code. The catalogues in
``src/yibu/console/locales`` hold them all, a file a language; ``--write`` adds what is missing and takes away what no
code has. ``index.html`` names the modules that the first page imports, so that a browser fetches them at once instead
of one after the other; ``--write`` lists them anew. Without it the differences are printed.
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
_IMPORT = re.compile(r'^(?:import|export)\b[^;"()]*?"(\.[^"]+)"', re.MULTILINE)
_PRELOAD = re.compile(r'(?:<link rel="modulepreload" [^>]*>\n)+')
_UNTRANSLATED = ""
INDEX = CONSOLE / "index.html"


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


def first_modules() -> list[str]:
    """What ``main.js`` imports, directly or not, below the console's folder."""
    found: list[Path] = []
    waiting = [CONSOLE / "main.js"]
    while waiting:
        module = waiting.pop(0)
        for name in _IMPORT.findall(module.read_text("utf-8")):
            path = (module.parent / name).resolve()
            if path not in found:
                found.append(path)
                waiting.append(path)
    return sorted(str(path.relative_to(CONSOLE)) for path in found)


def preloaded() -> str:
    """``index.html`` as it should be."""
    links = (f'<link rel="modulepreload" href="__BASE__/{name}">\n' for name in first_modules())
    return _PRELOAD.sub("".join(links), INDEX.read_text("utf-8"), count=1)


def main(arguments: Sequence[str]) -> int:
    wanted = sorted(ids())
    lines = []
    if "--write" in arguments:
        INDEX.write_text(preloaded(), "utf-8")
    if INDEX.read_text("utf-8") != preloaded():
        lines.append("index.html: other modules are preloaded than main.js imports")
    for language, kept in catalogues().items():
        catalogue = kept
        if "--write" in arguments:
            default = {text: text for text in wanted} if language == "en" else {}
            catalogue = {
                text: kept.get(text) or default.get(text, _UNTRANSLATED) for text in wanted
            }
            text = json.dumps(catalogue, ensure_ascii=False, indent=1) + "\n"
            (LOCALES / f"{language}.json").write_text(text, "utf-8")
        lines += [f"{language}: {line}" for line in differences(catalogue, wanted)]
    print("\n".join(lines) or f"{len(wanted)} texts, in every language.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

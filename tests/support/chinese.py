"""Finds English in what is printed for a Chinese reader."""

from __future__ import annotations

import re

TERMS = frozenset(
    [
        "batch",
        "compose",
        "idle",
        "interactive",
        "kustomization",
        "node",
        "operator",
        "pod",
        "root",
        "shell",
        "speech",
        "sudo",
        "supervisord",
        "systemd",
        "text",
        "token",
        "vllm",
        "wheel",
        "yibu",
    ]
)
"""Words that Chinese engineers write in English, and names."""
_TYPED = re.compile(
    r"`[^`]*`"  # what is to be typed
    r"|'[^']*'|\"[^\"]*\""
    r"|https?://\S+"
    r"|yibu [a-z]\S*(?: [a-zA-Z0-9./-]\S*)*"
    r"|\b(?:tar|df|ls|fuser|export|journalctl|sudo|pip|nvidia-smi|iconv|chmod)(?: [!-~]+)+"
    r"|[!-~]*[0-9A-Z_/.:=<>|#@{}\[\]-][!-~]*"  # names, paths, options, values
)


def english(text: str, *names: str) -> list[str]:
    """The lines with a word that is neither a term, nor to be typed, nor one of ``names``."""
    found = []
    for line in text.splitlines():
        said = re.sub(r"^ +[a-z.]+(?: {2,}|$)", "", line)  # a name in the first column
        words = re.findall(r"[a-z]{3,}", _TYPED.sub(" ", said))
        if not TERMS.union(names).issuperset(words):
            found.append(line)
    return found

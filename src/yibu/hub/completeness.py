"""Missing files of a model in a hub's cache, where no hub can be asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from yibu.hub.quantization import missing_parts

NO_WEIGHTS = (
    ".json", ".jsonl", ".txt", ".md", ".py", ".jinja", ".yaml", ".yml", ".model", ".vocab", ".tiktoken",
    ".gitattributes", ".gitignore", "license", "notice", ".html", ".pdf", ".png", ".jpg", ".jpeg", ".gif",
    ".svg", ".webp", ".wav", ".mp3", ".mp4",
)  # fmt: skip
"""Endings of configs, tokenizers and documentation; weights have many more than can be listed."""
_READ = ("config.json", "tokenizer", "vocab.", "merges.", "preprocessor_config.")
"""Beginnings of the names of files that engines read beside the weights, if a repository has them."""


def lacking(root: Path, here: Collection[str], listed: Collection[str] = ()) -> set[str]:
    """Files that the model in ``root``, whose files are ``here``, cannot be loaded without.

    Most files that the hub ``listed`` may be missing: vLLM and transformers fetch one format of the
    weights, and no documentation.
    """
    weights = [path for path in here if not path.lower().endswith(NO_WEIGHTS)]
    parts = itertools.chain(*missing_parts(weights).values())
    if not weights:
        read = set(listed)
    elif all(path.lower().endswith(".gguf") for path in weights):
        read = set()
    else:
        read = {path for path in listed if path.startswith(_READ)}
    return {*_missing_shards(root), *parts, *read} - set(here)


def _missing_shards(root: Path) -> set[str]:
    """Weight files named by an ``*.index.json`` that are missing."""
    missing = set()
    for index in root.glob("*.index.json"):
        try:
            names = indexed_files(json.loads(index.read_bytes()))
        except (OSError, ValueError):
            names = set()
        if not names:
            missing.add(index.name)
        missing |= {name for name in names if not (root / name).is_file()}
    return missing


def indexed_files(index: Any) -> set[str]:
    """The weight files that the content of an ``*.index.json`` names."""
    weights = index.get("weight_map") if isinstance(index, dict) else None
    return set(map(str, weights.values())) if isinstance(weights, dict) else set()

"""Models that the speech engine loads beside its recognizer, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yibu.errors import SourceError
from yibu.hub import catalogue
from yibu.hub.source import parse_source

BESIDE: Mapping[str, str] = {
    "punctuation": "ct-punc",
    "speakers": "cam++",
    "online": "paraformer-zh-streaming",
}
"""The usual model for each option that names one."""


def bytes_beside(options: Mapping[str, object]) -> int:
    """Memory that the models named in ``options`` take, as far as is known before they are here.

    A directory is measured; the catalogue knows sizes of published ones; any other is taken to be as
    large as the usual one.
    """
    named = {name: options.get(name) for name in BESIDE}
    return sum(_bytes(source, BESIDE[name]) for name, source in named.items() if source)


def _bytes(source: object, usual: str) -> int:
    text = str(source)
    weights = Path(text) / "model.pt"
    if weights.is_file():
        return weights.stat().st_size
    try:
        repo = parse_source(text).name
    except SourceError:
        repo = text
    known = [entry for entry in catalogue.entries() if repo in (entry.modelscope, entry.hf)]
    known += [entry for entry in catalogue.entries() if entry.name == usual]
    return next((entry.size for entry in known if entry.size), 0)

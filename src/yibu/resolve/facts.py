"""Facts of an entry's files: from disk, or from the headers at its hub."""

from __future__ import annotations

from pathlib import Path

from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.planner.facts import facts_from_headers, read_facts
from yibu.planner.headers import remote_facts
from yibu.planner.transformers_model import read_config
from yibu.planner.types import ModelFacts

_WEIGHTS = frozenset({".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx"})


def stored_facts(source: str, store: Store) -> ModelFacts | None:
    """Facts of a model on this disk; None where it is not here, or there is no source.

    Raises:
        YibuError: its files cannot be read.
    """
    local = store.find(parse_source(source)) if source else None
    if local is None:
        return None
    if _has_config_alone(local.path):
        return facts_from_headers(name=source, config=read_config(local.path))
    return read_facts(local.path, local.projector)


def known_facts(source: str, store: Store) -> tuple[ModelFacts | None, tuple[str, ...]]:
    """The same, or else from its hub, where only headers are fetched; with it comes what was chosen for
    the user.

    Raises:
        HubNotFoundError: the model is a package that is not here, of which no part can be read.
        YibuError: it cannot be found or read.
    """
    facts = stored_facts(source, store)
    if facts is not None or not source:
        return facts, ()
    parsed = parse_source(source)
    with store.fetch_config(parsed) as headers:
        return remote_facts(source, headers), headers.notes


def _has_config_alone(path: Path) -> bool:
    """Whether the directory has a transformers model's config without weights: enough to plan with."""
    if not (path / "config.json").is_file():
        return False
    return not any(file.suffix in _WEIGHTS for file in path.rglob("*"))

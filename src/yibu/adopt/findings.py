"""What a script amounts to, collected over its servers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from yibu.adopt.servers import StartedServer
from yibu.config.keys import is_loopback
from yibu.messages import tr

_EVERY = frozenset({"0.0.0.0", "::", "[::]"})  # noqa: S104 - looked for, not bound to


@dataclass(frozen=True, slots=True)
class Adoption:
    """The result of adopting a script."""

    document: Mapping[str, Any]
    """The yibu.yaml as plain data."""
    keys: tuple[str, ...] = field(repr=False)
    """API keys in the script, for a key file of mode 0600."""
    warnings: tuple[str, ...]
    """Unsafe settings, and differences to expect."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials of the environment by their variables, which ``document`` refers to: for a file of
    mode 0600."""
    servers: tuple[StartedServer, ...] = field(default=(), repr=False)
    """The servers that were found, one a model."""
    host: str = ""
    """Where the first of them listens, which ``document`` has only if it may stand open."""

    def with_key_file(self, path: str) -> Adoption:
        """The same, its gateway taking its keys from that file."""
        gateway = {**self.document["gateway"], "api_key_file": path}
        return dataclasses.replace(self, document={**self.document, "gateway": gateway})

    def to_yaml(self) -> str:
        return yaml.safe_dump(dict(self.document), sort_keys=False, allow_unicode=True)


@dataclass(slots=True)
class Findings:
    """Collects findings over all servers of a script."""

    models: list[dict[str, Any]] = field(default_factory=list)
    addresses: list[tuple[str | None, int | None]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def free_names(self, names: Sequence[str]) -> list[str]:
        """Names that no model has yet, the first one numbered where it is taken."""
        taken = {
            name for model in self.models for name in (model["name"], *model.get("aliases", ()))
        }
        first, *others = names
        number = 2
        name = first
        while name in taken:
            name, number = f"{first}-{number}", number + 1
        if name != first:
            self.warn(
                tr(
                    "two servers answer to {first!r}, and one gateway serves both: the second is "
                    "{name!r}; of the same model, `replicas: 2` would share its requests",
                    first=first,
                    name=name,
                )
            )
        return [name, *(other for other in others if other not in taken)]

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def name_of(source: str) -> str:
    base = source.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")
    return re.sub(r"[^\w.-]+", "-", base) or "model"


def gateway(found: Findings, host: str, usual: int) -> dict[str, Any]:
    """The gateway's section; ``usual`` is the port of a server that was told none."""
    section: dict[str, Any] = {"host": host, "port": found.addresses[0][1] or usual}
    if not is_loopback(host) and not found.keys:
        section["host"] = "127.0.0.1"
        where = tr("every interface") if host in _EVERY else host
        found.warn(
            tr(
                "it listened on {where} without a key: anyone on the network could use it. The "
                "gateway stays on loopback until a key is set (YIBU_API_KEYS, or a key file)",
                where=where,
            )
        )
    for model, (_, other) in zip(found.models[1:], found.addresses[1:], strict=True):
        if other is not None and other != section["port"]:
            found.warn(
                tr(
                    "{name} was at port {other}; it is now asked for by its name at port {port}",
                    name=model["name"],
                    other=other,
                    port=section["port"],
                )
            )
    return section

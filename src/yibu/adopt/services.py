"""What Compose files, Kubernetes manifests and Helm values have in common."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yibu.adopt.bash import Gap, UnknownScriptError
from yibu.adopt.containers import Container
from yibu.errors import UsageError
from yibu.messages import tr

_MAX_DEPTH = 12


@dataclass(frozen=True, slots=True)
class ManifestService:
    """One container of a manifest."""

    container: Container
    where: str
    """``service vllm``, ``Deployment qwen``."""
    replicas: int = 1
    line: int = 0
    """The image's line in the manifest."""
    gaps: tuple[Gap, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def refuse_gaps(service: ManifestService) -> None:
    """Raise UnknownScriptError where something that is not set reaches a server."""
    if service.gaps:
        gap = service.gaps[0]
        why = (
            tr("in {where} is not set", where=service.where) if gap.unset else tr("is not followed")
        )
        raise UnknownScriptError(gap, why)


def line_of(text: str, construct: str) -> int:
    return text.count("\n", 0, max(text.find(construct), 0)) + 1


def words_of(value: Any) -> tuple[str, ...]:
    """A command as Compose and Kubernetes have it: a list, or words that a shell would part."""
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise UsageError(
                "the command {value!r} cannot be read: {error}", value=value, error=error
            ) from error
    return tuple(map(text_of, value)) if isinstance(value, Sequence) else ()


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def mappings_in(value: Any, path: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        yield path, value
        for key, inner in value.items():
            yield from mappings_in(inner, f"{path}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from mappings_in(inner, path, depth + 1)

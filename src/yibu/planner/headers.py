"""A model's need before its files are here, from the headers at its hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from yibu.hub.quantization import best_projector, is_projector
from yibu.planner.chat_template import templates_of
from yibu.planner.facts import facts_from_headers, with_projector
from yibu.planner.quantization import MODELOPT, with_file
from yibu.planner.speech_model import facts_of_listing
from yibu.planner.types import ModelFacts
from yibu.weights.gguf import HeaderCutShortError
from yibu.weights.safetensors import header_length, load_header

_GGUF_PREFIX = 4 * 2**20
"""Bytes fetched first: metadata and tensor list of most models; more is read where needed."""
_INDEX = "model.safetensors.index.json"


class Headers(Protocol):
    """The files of a model at its hub, and a way to read pieces of them."""

    @property
    def files(self) -> Mapping[str, int]:
        """path → bytes (0 where the hub does not say)"""
        ...

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes: ...
    def json(self, path: str) -> Any:
        """The parsed file, or None where there is none."""
        ...


def remote_facts(name: str, headers: Headers) -> ModelFacts:
    """A model's facts from the headers of its files.

    Args:
        name: What error messages call the model.

    Raises:
        HubError: the hub failed.
        VerificationError, UnsupportedError, UsageError: as ``facts_from_headers``.
    """
    if (speech := facts_of_listing(headers.files)) is not None:
        return speech
    ggufs = [path for path in headers.files if path.endswith(".gguf") and not is_projector(path)]
    if ggufs:
        return gguf_facts(name, headers, ggufs)
    index = headers.json(_INDEX)
    weights = [path for path in headers.files if path.endswith(".safetensors")]
    # An index has the total already; without one the single file's header is small.
    tensors = {} if index else {path: _safetensors_header(headers, path) for path in weights}
    return facts_from_headers(
        name=name,
        config=_config(headers),
        index=index,
        headers=tensors,
        templates=templates_of(
            headers.files,
            lambda name: headers.read(name).decode(errors="replace"),
            lambda name: headers.json(name) or {},
        ),
    )


def _config(headers: Headers) -> Mapping[str, Any] | None:
    config: Mapping[str, Any] | None = headers.json("config.json")
    if config is None or MODELOPT not in headers.files:
        return config
    return with_file(config, headers.json(MODELOPT))


def gguf_facts(name: str, headers: Headers, parts: Sequence[str]) -> ModelFacts:
    """A GGUF model's facts from the header of its first part, with its projector's bytes.

    Raises:
        HubError, VerificationError, UnsupportedError: as ``remote_facts``.
    """
    sizes = [headers.files[path] for path in parts]
    facts = _first_part(name, headers, parts[0])
    if len(parts) > 1 and all(sizes):
        # The first part's header has its own tensors alone.
        facts = replace(facts, weight_bytes=sum(sizes), by_layer=None)
    projector = best_projector(headers.files)
    return with_projector(facts, headers.files[projector]) if projector else facts


def _first_part(name: str, headers: Headers, path: str) -> ModelFacts:
    length = _GGUF_PREFIX
    while True:
        prefix = headers.read(path, 0, min(length, headers.files[path] or length))
        try:
            return facts_from_headers(
                name=name, gguf_prefix=prefix, gguf_size=headers.files[path] or None
            )
        except HeaderCutShortError as short:
            if len(prefix) < length:
                raise  # the file itself ends here
            length = max(short.needed, 2 * length)


def _safetensors_header(headers: Headers, path: str) -> Mapping[str, Any]:
    length = header_length(headers.read(path, 0, 8), path)
    return load_header(headers.read(path, 8, length), path)

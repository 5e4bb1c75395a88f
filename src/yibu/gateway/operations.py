"""What clients can ask engines for: the paths, the capability each needs, and who may answer."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from yibu.engines.base import Capability
from yibu.errors import InvalidRequestError, UnknownModelError
from yibu.gateway.backend import Backend, Route
from yibu.gateway.mend import Kind
from yibu.gateway.schemas.chat import ChatRequest
from yibu.gateway.schemas.text import AnyRequest, CompletionRequest, EmbeddingRequest


@dataclass(frozen=True, slots=True)
class Operation:
    """One path of the hot kind: a POST that an engine answers."""

    path: str
    capability: Capability
    noun: str
    kind: Kind = "other"
    schema: type[BaseModel] | None = AnyRequest
    """None for multipart uploads."""
    model_required: bool = True
    """Otherwise the first model that can do it answers (the script's ``/recognize/``)."""


OPERATIONS = {
    operation.path: operation
    for operation in (
        Operation("/v1/chat/completions", "chat", "chat", "chat", ChatRequest),
        Operation(
            "/v1/completions", "completions", "text completion", "completions", CompletionRequest
        ),
        Operation("/v1/embeddings", "embeddings", "embedding", "embeddings", EmbeddingRequest),
        Operation("/v1/audio/transcriptions", "transcriptions", "speech recognition", schema=None),
        Operation("/v1/audio/translations", "translations", "speech translation", schema=None),
        Operation(
            "/recognize/", "transcriptions", "speech recognition", schema=None, model_required=False
        ),
        Operation("/v1/rerank", "rerank", "reranking"),
        Operation("/v1/score", "score", "scoring"),
        Operation("/v1/responses", "responses", "responses"),
        Operation("/v1/messages", "messages", "messages"),
        Operation("/tokenize", "tokenize", "tokenizing"),
        Operation("/detokenize", "tokenize", "tokenizing"),
    )
}

SURFACE_PATHS = frozenset({"/v1/models", "/healthz", "/readyz", "/metrics", "/docs", "/redoc"})
"""Of the documented surface, those that metrics name; the rest, and what does not exist, is
``other``."""

_NOUNS: dict[Capability, str] = {op.capability: op.noun for op in OPERATIONS.values()}
_PATHS: dict[Capability, str] = {
    op.capability: op.path for op in reversed(list(OPERATIONS.values())) if op.model_required
}


def find_route(backend: Backend, model: str, operation: Operation) -> Route:
    """The route of ``model`` for this operation.

    Raises:
        UnknownModelError: no such model; the message names those that exist.
        InvalidRequestError: the model's engine does something else.
    """
    route = backend.route(model)
    if route is None:
        raise unknown_model(backend, model)
    if operation.capability not in route.capabilities:
        able = [name for name in _NOUNS if name in route.capabilities]
        does = " and ".join(_NOUNS[name] for name in able) or "nothing that is served here"
        paths = " or ".join(_PATHS[name] for name in able)
        raise InvalidRequestError(
            f"Model {model!r} does {does}, not {operation.noun}",
            hint=f"Use {paths}" if paths else "",
            param="model",
            code="model_not_capable",
        )
    return route


def only_route(backend: Backend, operation: Operation) -> Route:
    """The first model that can do this, for a request that names none.

    Raises:
        UnknownModelError: no model can.
    """
    for route in backend.routes():
        if operation.capability in route.capabilities:
            return route
    raise UnknownModelError(f"No model here does {operation.noun}")


def unknown_model(backend: Backend, model: str) -> UnknownModelError:
    names = [route.model for route in backend.routes()]
    exist = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    shown = model if len(model) <= 100 else model[:99] + "…"
    return UnknownModelError(
        f"There is no model {shown!r} here; "
        + (f"those that exist: {exist}" if names else "no model is served yet"),
        param="model",
    )

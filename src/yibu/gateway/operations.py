"""The paths that engines answer, the capability each needs, and who may answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from yibu.engines.answers import Kind
from yibu.engines.base import Capability
from yibu.errors import UnknownModelError
from yibu.gateway.access import Access
from yibu.gateway.envelope import Dialect, NotCapableError
from yibu.gateway.limits import Models
from yibu.gateway.schemas import answers
from yibu.gateway.schemas.base import Strict, validator
from yibu.gateway.schemas.chat import ChatRequest
from yibu.gateway.schemas.other import (
    CountTokensRequest,
    DetokenizeRequest,
    MessagesRequest,
    RerankRequest,
    ResponsesRequest,
    TokenizeRequest,
)
from yibu.gateway.schemas.text import AnyRequest, CompletionRequest, EmbeddingRequest
from yibu.messages import joined, tr
from yibu.routing import Route


@dataclass(frozen=True, slots=True)
class Operation:
    """One path that an engine answers: a POST."""

    path: str
    capability: Capability
    noun: str
    kind: Kind = "other"
    schema: type[Strict] | None = AnyRequest
    """None for multipart uploads."""
    model_required: bool = True
    """Otherwise the first model that can do it answers (the script's ``/recognize/``)."""
    dialect: Dialect = "openai"
    access: Access = field(kw_only=True)
    answer: type[Strict] = field(kw_only=True)


OPERATIONS = {
    operation.path: operation
    for operation in (
        Operation(
            "/v1/chat/completions",
            "chat",
            tr("chat"),
            "chat",
            ChatRequest,
            answer=answers.ChatCompletion,
            access="key",
        ),
        Operation(
            "/v1/completions",
            "completions",
            tr("text completion"),
            "completions",
            CompletionRequest,
            answer=answers.TextCompletion,
            access="key",
        ),
        Operation(
            "/v1/embeddings",
            "embeddings",
            tr("embedding"),
            "embeddings",
            EmbeddingRequest,
            answer=answers.EmbeddingList,
            access="key",
        ),
        Operation(
            "/v1/audio/transcriptions",
            "transcriptions",
            tr("speech recognition"),
            "transcription",
            schema=None,
            answer=answers.Transcription,
            access="key",
        ),
        Operation(
            "/v1/audio/translations",
            "translations",
            tr("speech translation"),
            "transcription",
            schema=None,
            answer=answers.Transcription,
            access="key",
        ),
        Operation(
            "/recognize/",
            "transcriptions",
            tr("speech recognition"),
            "transcription",
            schema=None,
            model_required=False,
            dialect="script",
            answer=answers.RecognizedText,
            access="key",
        ),
        Operation(
            "/v1/rerank",
            "rerank",
            tr("reranking"),
            "ranking",
            schema=RerankRequest,
            answer=answers.Ranking,
            access="key",
        ),
        Operation(
            "/v1/score",
            "score",
            tr("scoring"),
            "ranking",
            answer=answers.ScoreList,
            access="key",
        ),
        Operation(
            "/v1/responses",
            "responses",
            tr("responses"),
            "responses",
            ResponsesRequest,
            dialect="responses",
            answer=answers.ResponseAnswer,
            access="key",
        ),
        Operation(
            "/v1/messages",
            "messages",
            tr("messages"),
            "messages",
            MessagesRequest,
            dialect="anthropic",
            answer=answers.MessageAnswer,
            access="key",
        ),
        Operation(
            "/v1/messages/count_tokens",
            "messages",
            tr("counting tokens"),
            schema=CountTokensRequest,
            dialect="anthropic",
            answer=answers.TokenCount,
            access="key",
        ),
        Operation(
            "/tokenize",
            "tokenize",
            tr("tokenizing"),
            "tokenize",
            TokenizeRequest,
            answer=answers.TokenList,
            access="key",
        ),
        Operation(
            "/detokenize",
            "tokenize",
            tr("tokenizing"),
            "detokenize",
            DetokenizeRequest,
            answer=answers.Detokenized,
            access="key",
        ),
    )
}


async def build_validators() -> None:
    """Build all validators, one each turn of the event loop: each takes up to 20 ms, which the first
    request would wait for."""
    for operation in OPERATIONS.values():
        if operation.schema is not None:
            validator(operation.schema)
            await asyncio.sleep(0)


def dialect_of(path: str) -> Dialect:
    """The error dialect of a path that no operation serves."""
    other: Dialect = "anthropic" if path.startswith("/v1/messages/") else "openai"
    return "script" if path.startswith("/api/") else other


def canonical(path: str) -> str:
    """The known path, with or without a slash at the end."""
    if path in OPERATIONS or len(path) < 2:
        return path
    return path + "/" if path + "/" in OPERATIONS else path.rstrip("/") or "/"


def right_path(path: str) -> str:
    """The path that was likely meant."""
    if path.startswith("/api/"):
        return tr("Models are managed on the command line: yibu up, yibu pull, yibu down")
    known = (*OPERATIONS, "/v1/models")
    for start in range(path.count("/")):
        tail = "/" + path.split("/", start + 1)[-1]
        for name in known:
            if canonical(tail) in {name, name.removeprefix("/v1")}:
                if name.startswith("/v1"):
                    return tr("Write {name} (a base URL ends with /v1)", name=name)
                return tr("Write {name}", name=name)
    return tr("/docs lists the paths")


SURFACE_PATHS = frozenset(
    {
        "/api/tags",
        "/api/ps",
        "/api/show",
        "/api/version",
        "/v1/models",
        "/tokenizer_info",
        "/v1/usage",
        "/v1/admin/usage",
        "/health",
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
        "/redoc",
    }
)
"""Paths of the documented surface that metrics name; all others are ``other``."""

_NOUNS: dict[Capability, str] = {}
for _operation in OPERATIONS.values():
    _NOUNS.setdefault(_operation.capability, _operation.noun)
_PATHS: dict[Capability, str] = {
    op.capability: op.path for op in reversed(list(OPERATIONS.values())) if op.model_required
}


def find_route(models: Models, model: str, operation: Operation) -> Route:
    """The route of ``model`` for this operation.

    Raises:
        UnknownModelError: no such model; the message names those that exist.
        NotCapableError: the model's engine does something else; the message names it.
    """
    route = models.route(model)
    if route is None:
        raise unknown_model(models, model)
    # One that is still downloading, or failed at it, can do nothing yet: 503 says why.
    if route.capabilities and operation.capability not in route.capabilities:
        able = [name for name in _NOUNS if name in route.capabilities]
        does = joined(" and ", (_NOUNS[name] for name in able))
        paths = joined(" or ", (_PATHS[name] for name in able))
        raise NotCapableError(
            "Model {model!r} does {does} (its engine is {engine}), not {noun}",
            model=model,
            does=does,
            engine=route.engine,
            noun=operation.noun,
            paths=paths,
            hint="Use {paths}",
            param="model",
        )
    return route


def only_route(models: Models, operation: Operation) -> Route:
    """The route of the first model with this capability, for a request that names none.

    Raises:
        UnknownModelError: no model can.
    """
    for route in models.routes():
        if operation.capability in route.capabilities:
            return route
    raise UnknownModelError("No model here does {noun}", noun=operation.noun)


def unknown_model(models: Models, model: str) -> UnknownModelError:
    names = [name for route in models.routes() for name in (route.model, *route.names)]
    exist = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    shown = model if len(model) <= 100 else model[:99] + "…"
    text = (
        tr("There is no model {shown!r} here; those that exist: {exist}", shown=shown, exist=exist)
        if names
        else tr("There is no model {shown!r} here; no model is served yet", shown=shown)
    )
    return UnknownModelError(text, param="model")

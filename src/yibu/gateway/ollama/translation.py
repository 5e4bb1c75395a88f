"""Ollama's paths and the operations that answer them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import orjson

from yibu.gateway.access import Access
from yibu.gateway.http.exchange import Exchange
from yibu.gateway.limits import Models, visible
from yibu.gateway.ollama import schemas
from yibu.gateway.ollama.answers import Shape, Translator, now
from yibu.gateway.ollama.requests import (
    asks_for_nothing,
    chat_body,
    check_kept,
    embed_body,
    generate_body,
)
from yibu.gateway.operations import unknown_model
from yibu.gateway.requests.body import parse
from yibu.gateway.requests.heavy import is_heavy, parse_body
from yibu.gateway.requests.offload import OffloadProcess
from yibu.gateway.schemas.base import Strict
from yibu.messages import tr
from yibu.routing import Backend, Route


@dataclass(frozen=True, slots=True)
class PathTranslation:
    """One path that an operation answers in Ollama's form."""

    summary: str
    shape: Shape
    schema: type[Strict]
    body: Callable[[dict[str, Any], Route], tuple[str, dict[str, Any]]]
    access: Access


TRANSLATIONS: Mapping[str, PathTranslation] = MappingProxyType(
    {
        "/api/chat": PathTranslation("Chat", "chat", schemas.OllamaChat, chat_body, access="key"),
        "/api/generate": PathTranslation(
            tr("Answer or continue a text"), "generate", schemas.OllamaGenerate, generate_body,
            access="key",
        ),
        "/api/embed": PathTranslation(
            "Embedding", "embed", schemas.OllamaEmbed, embed_body, access="key"
        ),
        "/api/embeddings": PathTranslation(
            tr("Embedding, the older way"), "embeddings", schemas.OllamaEmbeddings, embed_body,
            access="key",
        ),
    }
)  # fmt: skip


async def translate(
    exchange: Exchange,
    path: str,
    backend: Backend,
    limit: int,
    offload: OffloadProcess,
    admit: Callable[[Exchange, Route, str], Awaitable[None]],
) -> str | None:
    """Replace Ollama's request by OpenAI's, and have its answer translated.

    ``admit`` lets a request begin that is answered here; all others meet it on their way.

    Returns the path of the operation that is to go on; None where all has been answered here.

    Raises:
        RequestError: the request is refused.
    """
    # The body is JSON whatever its type says: curl -d calls it a form.
    translation = TRANSLATIONS[path]
    parts = await exchange.read_parts(limit)
    request = await parse_body(parts, translation.schema, offload)
    given = request.body
    models = visible(backend, exchange.caller)
    route = route_of(models, given["model"])
    model = given["model"]
    known = _known(models, model)
    heavy = is_heavy(parts)
    if not heavy and asks_for_nothing(given):
        check_kept(given)
        await admit(exchange, route, known)
        lease = backend.acquire(route.model, slotless=True)
        await lease.granted()
        lease.release()
        loaded = _nothing(translation.shape, model)
        await exchange.respond(200, [(b"content-type", b"application/json")], orjson.dumps(loaded))
        return None
    if not heavy:
        target, body = rewrite(path, given, known, route)
    else:
        target, body = await offload.run(
            rewrite_heavy, path, parts, known, replace(route, names={})
        )
    exchange.replace_body(body)
    exchange.translate(lambda send: Translator(send, translation.shape, model).send)
    return target


def _nothing(shape: str, model: str) -> dict[str, Any]:
    """The answer to a request that asks for nothing."""
    if shape == "embed":
        return {"model": model, "embeddings": []}
    if shape == "embeddings":
        return {"embedding": []}
    said: dict[str, Any] = {"message": {"role": "assistant", "content": ""}}
    words = {"response": ""} if shape == "generate" else said
    return {"model": model, "created_at": now(), **words, "done": True, "done_reason": "load"}


def rewrite(path: str, given: dict[str, Any], model: str, route: Route) -> tuple[str, bytes]:
    """The operation that answers a request to ``path``, and its body."""
    target, body = TRANSLATIONS[path].body({**given, "model": model}, route)
    return target, orjson.dumps(body)


def rewrite_heavy(path: str, parts: Sequence[bytes], model: str, route: Route) -> tuple[str, bytes]:
    """``rewrite`` for a body that is parsed in the offload process."""
    given = parse(b"".join(parts), TRANSLATIONS[path].schema).body
    return rewrite(path, given, model, route)


def route_of(models: Models, model: str) -> Route:
    """The model's route, by the name that Ollama's clients use.

    Raises:
        UnknownModelError: there is none.
    """
    route = models.route(_known(models, model))
    if route is None:
        raise unknown_model(models, model)
    return route


def _known(models: Models, model: str) -> str:
    """The model's name without ``:latest``, which clients add where no tag is written."""
    return model if models.route(model) else model.removesuffix(":latest")

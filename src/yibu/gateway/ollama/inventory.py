"""The models in Ollama's form: ``/api/tags``, ``/api/ps``, ``/api/show``, ``/api/version``."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request

from yibu.errors import InvalidRequestError
from yibu.gateway.access import CALLER, allow
from yibu.gateway.limits import Models, visible
from yibu.gateway.ollama import schemas
from yibu.gateway.ollama.answers import stamp
from yibu.gateway.ollama.translation import route_of
from yibu.gateway.requests.body import parse
from yibu.routing import Backend, Route

_CAPABILITIES = {
    "chat": "completion",
    "completions": "completion",
    "embeddings": "embedding",
    "vision": "vision",
}
_FOREVER = "2318-01-01T00:00:00Z"
"""When a model that stays is unloaded, as Ollama says it."""


def add_inventory(app: FastAPI, backend: Backend, version: str) -> None:
    """Put the paths on the documented surface."""

    def _seen(request: Request) -> Models:
        return visible(backend, request.scope[CALLER])

    @app.get("/api/version", tags=["ollama"], summary="The version of yibu",
             openapi_extra=allow("open"))  # fmt: skip
    async def tell_version() -> schemas.Version:
        return schemas.Version(version=version)

    @app.get("/api/tags", tags=["ollama"], summary="List the models", openapi_extra=allow("key"))
    async def tags(request: Request) -> schemas.Tags:
        return schemas.Tags(models=[_listed(*named) for named in _names(_seen(request))])

    @app.get("/api/ps", tags=["ollama"], summary="List the models that are ready",
             openapi_extra=allow("key"))  # fmt: skip
    async def ready(request: Request) -> schemas.Tags:
        named = _names(_seen(request))
        models = [_running(*one) for one in named if one[0].state == "ready"]
        return schemas.Tags(models=models)

    @app.post("/api/show", tags=["ollama"], summary="Look one model up",
              openapi_extra=allow("key"))  # fmt: skip
    async def show(request: Request) -> dict[str, Any]:
        given = parse(await request.body(), schemas.ShowRequest).body
        name = given.get("model") or given.get("name")
        if not name:
            raise InvalidRequestError("'model' is missing", param="model")
        return _shown(route_of(_seen(request), name))


def _names(models: Models) -> list[tuple[Route, str]]:
    return [(route, name) for route in models.routes() for name in (route.model, *route.names)]


def _listed(route: Route, name: str) -> schemas.Listed:
    return schemas.Listed(
        name=name,
        model=name,
        modified_at=_created(route),
        size=route.details.size,
        # Ollama's is the hash of a manifest; this one tells models apart as well.
        digest=hashlib.sha256(f"{name} {route.created}".encode()).hexdigest(),
        details=_details(route),
    )


def _running(route: Route, name: str) -> schemas.Listed:
    more = {"expires_at": _FOREVER, "size_vram": 0, "context_length": route.max_context or 0}
    return schemas.Listed.model_validate(_listed(route, name).model_dump() | more)


def _shown(route: Route) -> dict[str, Any]:
    details = route.details
    architecture = details.architecture or "unknown"
    capabilities = {_CAPABILITIES[c] for c in route.capabilities if c in _CAPABILITIES}
    by_template = {"tools": details.takes_tools, "thinking": details.thinks}
    capabilities |= {name for name, able in by_template.items() if able}
    return {
        "modelfile": "",
        "parameters": f"num_ctx {route.max_context}" if route.max_context else "",
        "template": "",
        "details": _details(route),
        "model_info": {
            "general.architecture": architecture,
            "general.parameter_count": details.parameters,
            f"{architecture}.context_length": route.max_context or 0,
        },
        "capabilities": sorted(capabilities),
        "modified_at": _created(route),
    }


def _details(route: Route) -> dict[str, Any]:
    details = route.details
    return {
        "parent_model": "",
        "format": details.format,
        "family": details.architecture,
        "families": [details.architecture] if details.architecture else [],
        "parameter_size": _parameters(details.parameters),
        "quantization_level": details.quantization,
    }


def _parameters(count: int) -> str:
    if not count:
        return ""
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"


def _created(route: Route) -> str:
    return stamp(datetime.fromtimestamp(route.created, UTC))

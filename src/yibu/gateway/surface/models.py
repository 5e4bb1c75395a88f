"""``GET /v1/models``: what a caller may ask for, in the words of OpenAI's API or of Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from yibu.errors import InvalidRequestError
from yibu.gateway.access import CALLER, allow
from yibu.gateway.limits import Models, visible
from yibu.gateway.operations import unknown_model
from yibu.gateway.schemas.answers import ErrorAnswer
from yibu.gateway.schemas.models import (
    AnthropicModel,
    AnthropicModelList,
    Model,
    ModelList,
    ModelMeta,
)
from yibu.routing import Backend, Route

ANTHROPIC_HEADER = "anthropic-version"
"""A header that every client of Anthropic's API sends, and nobody else."""
_PAGE = 20
"""Models on a page of Anthropic's list unless ``limit`` is sent, as there."""
_LARGEST_PAGE = 1000


def add_models(app: FastAPI, backend: Backend) -> None:
    """Put both paths on the documented surface."""

    @app.get(
        "/v1/models",
        tags=["models"],
        summary="List the models; with Anthropic's headers as its API does",
        response_model=ModelList,
        openapi_extra=allow("key"),
    )
    async def list_models(request: Request) -> ModelList | JSONResponse:
        models = visible(backend, request.scope[CALLER])
        named = [(route, name) for route in models.routes() for name in (route.model, *route.names)]
        if ANTHROPIC_HEADER not in request.headers:
            return ModelList(object="list", data=[_model(*one, models) for one in named])
        page = _page([_anthropic(*one) for one in named], request.query_params)
        return JSONResponse(page.model_dump())

    @app.get(
        "/v1/models/{model:path}",
        tags=["models"],
        summary="Look one model up; its name may hold slashes",
        response_model=Model,
        responses={404: {"model": ErrorAnswer}},
        openapi_extra=allow("key"),
    )
    async def get_model(model: str, request: Request) -> Model | JSONResponse:
        models = visible(backend, request.scope[CALLER])
        route = models.route(model)
        if route is None:
            raise unknown_model(models, model)
        if ANTHROPIC_HEADER in request.headers:
            return JSONResponse(_anthropic(route, model).model_dump())
        return _model(route, model, models)


def _model(route: Route, name: str, models: Models) -> Model:
    """``models`` are those that the caller may know of."""
    beside = route.meant(name) != route.model and models.route(route.model) is not None
    return Model(
        id=name,
        object="model",
        created=route.created,
        owned_by="yibu",
        engine=route.engine,
        state=route.state,
        capabilities=sorted(route.capabilities),
        max_context=route.max_context,
        max_model_len=route.max_context,
        context_length=route.max_context,
        parent=route.model if beside else None,
        meta=ModelMeta(
            n_ctx=route.max_context,
            n_ctx_train=route.details.trained_context,
            n_params=route.details.parameters or None,
            size=route.details.size or None,
        ),
    )


def _anthropic(route: Route, name: str) -> AnthropicModel:
    """https://platform.claude.com/docs/en/api/models-list"""
    created = datetime.fromtimestamp(route.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return AnthropicModel(
        type="model",
        id=name,
        display_name=name,
        created_at=created,
        lifecycle="active",
        max_input_tokens=route.max_context,
        max_tokens=route.max_context,
    )


def _page(models: list[AnthropicModel], asked: Mapping[str, str]) -> AnthropicModelList:
    """The models behind one (``after_id``), before one (``before_id``), or the first ones.

    Raises:
        InvalidRequestError: there is no such model, or the limit is none.
    """
    text = asked.get("limit", str(_PAGE))
    limit = int(text) if text.isdecimal() and len(text) < 6 else 0
    if not 1 <= limit <= _LARGEST_PAGE:
        raise InvalidRequestError(
            "Invalid 'limit': expected an integer from 1 to {largest}, found {text!r}",
            largest=_LARGEST_PAGE,
            text=text,
            param="limit",
        )
    ids = [model.id for model in models]
    for param in ("after_id", "before_id"):
        if (cursor := asked.get(param)) is None:
            continue
        if cursor not in ids:
            raise InvalidRequestError("There is no model {model!r} here", model=cursor, param=param)
        place = ids.index(cursor)
        models = models[place + 1 :] if param == "after_id" else models[:place]
        break
    page = models[-limit:] if "before_id" in asked and "after_id" not in asked else models[:limit]
    return AnthropicModelList(
        data=page,
        has_more=len(page) < len(models),
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
    )

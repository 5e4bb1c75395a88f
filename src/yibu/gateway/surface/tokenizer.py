"""``GET /tokenizer_info``: the configuration of a model's tokenizer, where its engine has it.

vLLM does with ``--enable-tokenizer-info-endpoint``; lm-evaluation-harness asks for it.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from yibu.engines.base import Capability
from yibu.errors import EngineGoneError, InvalidRequestError
from yibu.gateway.access import ADMIT, CALLER, allow
from yibu.gateway.answers.normalize import read_answer
from yibu.gateway.envelope import NotCapableError, engine_gone
from yibu.gateway.limits import Models, visible
from yibu.gateway.operations import unknown_model
from yibu.gateway.schemas.answers import ErrorAnswer
from yibu.messages import tr
from yibu.routing import Backend, Route
from yibu.upstream.ask import ask
from yibu.upstream.connection import UpstreamError

_SECONDS = 30.0
_LONGEST = 64 * 1024 * 1024
"""Bytes: a tokenizer's added tokens and its chat template stand in it."""
_PATH = "/tokenizer_info"
_CAPABILITY: Capability = "tokenizer_info"
_HINT = tr("vLLM does with options: {enable_tokenizer_info_endpoint: true}")


def add_tokenizer_info(app: FastAPI, backend: Backend) -> None:
    """Put the path on the documented surface."""

    @app.get(
        _PATH,
        tags=["tokens"],
        summary="The configuration of a model's tokenizer, where its engine tells it",
        responses={status: {"model": ErrorAnswer} for status in (400, 404, 502, 503)},
        openapi_extra=allow("key"),
    )
    async def tokenizer_info(request: Request, model: str | None = None) -> JSONResponse:
        models = visible(backend, request.scope[CALLER])
        name = model or _only(models)
        route = _route(models, name)
        await request.scope[ADMIT](route, name)
        return JSONResponse(await _asked(backend, route, name))


def _route(models: Models, model: str) -> Route:
    """The route of the requested model."""
    route = models.route(model)
    if route is None:
        raise unknown_model(models, model)
    # One that is still downloading can do nothing yet: 503 says why.
    if route.capabilities and _CAPABILITY not in route.capabilities:
        message = tr(
            "The engine of model {model!r}, {engine}, does not tell of its tokenizer",
            model=model,
            engine=route.engine,
        )
        raise NotCapableError(message, hint=_HINT, param="model")
    return route


def _only(models: Models) -> str:
    """The only model with this ability, where none is named."""
    able = [route for route in models.routes() if _CAPABILITY in route.capabilities]
    if not able:
        raise NotCapableError("No model's engine here tells of its tokenizer", hint=_HINT)
    if len(able) > 1:
        raise InvalidRequestError(
            "'model' is missing: {able} tell of their tokenizers",
            able=", ".join(r.model for r in able),
            path=_PATH,
            model=able[0].model,
            hint="Write {path}?model={model}",
            param="model",
            code="missing_required_parameter",
        )
    return able[0].model


async def _asked(backend: Backend, route: Route, name: str) -> dict[str, object]:
    lease = backend.acquire(route.model, slotless=True)
    await lease.granted()
    failed = False
    try:
        answer = await ask(lease.endpoint, "GET", _PATH, seconds=_SECONDS, limit=_LONGEST)
    except UpstreamError as error:
        failed = True
        raise engine_gone(error, name) from error
    finally:
        lease.release(failed=failed)
    if not answer.ok:
        raise EngineGoneError(
            "The engine of model {name!r} does not tell of its tokenizer: it answered "
            "{answer_status}",
            name=name,
            answer_status=answer.status,
            hint="See why: yibu logs {name}",
            code="engine_protocol_error",
        )
    told = read_answer(answer.body, name)
    if "name_or_path" in told:  # a path of this machine
        told["name_or_path"] = name
    return told

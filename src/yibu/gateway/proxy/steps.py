"""Requests that an engine's table rewrites, or that take several engine requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import orjson

from yibu.engines.answers import Kind
from yibu.engines.registry import request_tables
from yibu.engines.requests import Call, ModelContext, RequestTable
from yibu.errors import EngineGoneError
from yibu.gateway.operations import Operation
from yibu.gateway.requests.body import JsonRequest
from yibu.gateway.requests.heavy import outlined
from yibu.gateway.requests.offload import OffloadProcess
from yibu.gateway.requests.prompt_size import refuse_overlong
from yibu.routing import Route

Answer = dict[str, Any]
Ask = Callable[[Call], Awaitable[Answer]]


@cache
def _tables() -> dict[str, RequestTable]:
    return dict(request_tables())


async def prepare(
    operation: Operation, request: JsonRequest, route: Route, offload: OffloadProcess
) -> JsonRequest:
    """Refuse what the model's engine would ignore or cannot hold, and translate the rest for it.

    Raises:
        InvalidRequestError: with ``param`` naming the field.
    """
    if route.engine not in _tables():  # still downloading
        return request
    asked = ModelContext(request.model, route.engine, route.abilities, route.max_context)
    if request.written:
        return await offload.run(prepare_heavy, operation.kind, operation.path, request, asked)
    return _prepared(operation.kind, operation.path, request, asked)


def prepare_heavy(kind: Kind, path: str, request: JsonRequest, asked: ModelContext) -> JsonRequest:
    """The same for a body of which there is an outline."""
    request.body |= {name: orjson.loads(data) for name, data in request.written.items()}
    return outlined(_prepared(kind, path, request, asked))


def _prepared(kind: Kind, path: str, request: JsonRequest, asked: ModelContext) -> JsonRequest:
    refuse_overlong(kind, request, asked.max_context)
    request.steps = _tables()[asked.engine].prepare(path, request.body, asked)
    return request


async def run(request: JsonRequest, ask: Ask) -> Answer:
    """The answer to a request with steps; ``ask`` sends one of them to the engine."""
    assert request.steps is not None
    steps = request.steps()
    try:
        call = next(steps)
        while True:
            call = steps.send(await ask(call))
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    except (KeyError, TypeError, IndexError) as error:
        raise EngineGoneError(
            "The engine of model {model!r} answered in a shape that is not its own: {error!r}",
            model=request.model,
            error=error,
            code="engine_protocol_error",
        ) from error

"""The overview: what runs, its recent numbers, and the actions on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from yibu.config import ModelConfig
from yibu.config.values import split_keep
from yibu.config.wire import plain_config
from yibu.errors import InvalidRequestError
from yibu.gateway.access import allow
from yibu.gateway.console.answers import NotFoundError, answer, body_of
from yibu.gateway.console.console import Console
from yibu.gateway.console.jobs import ConsoleJob


class Change(BaseModel):
    """An action's arguments."""

    replicas: Annotated[int | None, Field(ge=1, le=64)] = None
    keep: Annotated[str | None, Field(max_length=40)] = None


async def full_overview(console: Console) -> dict[str, Any]:
    """The overview, as docs/console.md describes it."""
    found = await console.observer.overview()
    up = {model["name"] for model in found["models"]}
    in_file = await asyncio.to_thread(console.manager.file_models)
    names = {model.name for model in in_file}
    stopped = {model.name: model for model in (*in_file, *(await console.stopped()).values())}
    return {
        "time": time.time(),
        "version": console.deps.version,
        **found,
        "gateway": {**found["gateway"], "keys": console.authentication.keys.closed},
        "stopped": [
            _shown(model, in_file=name in names)
            for name, model in stopped.items()
            if name not in up
        ],
        "jobs": [job.plain() for job in console.jobs.all() if job.ended is None],
    }


def _shown(model: ModelConfig, *, in_file: bool) -> dict[str, Any]:
    file = str(model.file) if model.file else None
    told = {"name": model.name, "source": model.source, "engine": model.engine, "file": file}
    return {**told, "in_file": in_file}


def add_overview(router: APIRouter, console: Console) -> None:
    @router.get("/console/api/overview", openapi_extra=allow("console"))
    async def overview() -> Response:
        return answer(await full_overview(console))

    @router.get("/console/api/metrics", openapi_extra=allow("console"))
    async def metrics(range: Annotated[str, Query()] = "hour") -> Response:  # noqa: A002 - its name in the URL
        if range not in ("hour", "day", "month"):
            raise InvalidRequestError(
                "Invalid 'range': expected hour, day or month, found {range!r}",
                range=range[:40],
                param="range",
            )
        return answer(await asyncio.to_thread(console.observer.history.read, range, time.time()))

    _add_jobs(router, console)


def _add_jobs(router: APIRouter, console: Console) -> None:
    @router.get("/console/api/jobs", openapi_extra=allow("console"))
    async def jobs() -> Response:
        return answer({"jobs": [job.plain() for job in console.jobs.all()]})

    @router.get("/console/api/jobs/{number}", openapi_extra=allow("console"))
    async def job(number: str) -> Response:
        found = console.jobs.find(number)
        if found is None:
            raise NotFoundError("There is no job {number!r}", number=number[:40])
        return answer(found.plain())

    @router.delete("/console/api/jobs/{number}", openapi_extra=allow("console"))
    async def cancel(number: str) -> Response:
        found = console.jobs.find(number)
        if found is None or found.cancel is None:
            raise NotFoundError("There is no download {number!r}", number=number[:40])
        found.cancel.set()
        return answer(found.plain(), 202)

    @router.post("/console/api/models/{name:path}/{verb}", openapi_extra=allow("console"))
    async def act(name: str, verb: str, request: Request) -> Response:
        begin = VERBS.get(verb)
        if begin is None:
            raise NotFoundError("A model cannot be told to {verb!r}", verb=verb[:40])
        job = await begin(console, name, await body_of(request, Change))
        return answer(job.plain(), 202)


def _up(console: Console, name: str) -> ModelConfig | None:
    """The model that is up under a name of its own, or an alias."""
    route = console.deps.backend.route(name)
    meant = route.model if route else name
    return next((config for config in console.manager.configs() if config.name == meant), None)


def _need(console: Console, name: str) -> ModelConfig:
    config = _up(console, name)
    if config is None:
        raise NotFoundError("The model {name!r} is not up", name=name[:100], param="name")
    return config


async def _start(console: Console, name: str, _change: Change) -> ConsoleJob:
    if (config := _up(console, name)) is None:
        in_file = await asyncio.to_thread(console.manager.file_models)
        known = {model.name: model for model in in_file}
        config = {**known, **await console.stopped()}.get(name)
    if config is None:
        raise NotFoundError("There is no model {name!r} to start", name=name[:100], param="name")
    await console.forget_stopped(config.name)
    return _asked(console, "start", config, "up", models=[plain_config(config)], start=True)


async def _stop(console: Console, name: str, _change: Change) -> ConsoleJob:
    config = _need(console, name)
    in_file = await asyncio.to_thread(console.manager.file_models)
    await console.keep_stopped(config, in_file=any(m.name == config.name for m in in_file))
    return _asked(console, "stop", config, "down", models=[config.name])


async def _forget(console: Console, name: str, _change: Change) -> ConsoleJob:
    if name not in await console.stopped():
        raise NotFoundError("No model {name!r} was stopped here", name=name[:100], param="name")
    return console.jobs.start("forget", [name], console.forget_stopped(name))


async def _restart(console: Console, name: str, _change: Change) -> ConsoleJob:
    config = _need(console, name)
    return _asked(console, "restart", config, "restart", models=[config.name])


async def _unload(console: Console, name: str, _change: Change) -> ConsoleJob:
    config = _need(console, name)
    return _asked(console, "unload", config, "unload", models=[config.name])


async def _scale(console: Console, name: str, change: Change) -> ConsoleJob:
    config = _need(console, name)
    if change.replicas is None:
        raise InvalidRequestError("'replicas' is missing", param="replicas")
    replicas = change.replicas
    return _asked(console, "scale", config, "scale", models=[config.name], replicas=replicas)


async def _keep(console: Console, name: str, change: Change) -> ConsoleJob:
    config = _need(console, name)
    try:
        keep, seconds = split_keep(change.keep or "")
    except ValueError as error:
        raise InvalidRequestError("Invalid 'keep': {error}", error=error, param="keep") from None
    idle = config.idle if seconds is None else seconds
    changed = replace(config, keep=keep, idle=idle)
    return _asked(console, "keep", config, "up", models=[plain_config(changed)])


def _asked(
    console: Console, verb: str, config: ModelConfig, operation: str, **fields: Any
) -> ConsoleJob:
    """Run an operation of the control socket as a job of this name."""
    return console.jobs.start(verb, [config.name], console.manager.ask(operation, **fields))


VERBS: Mapping[str, Any] = {
    "start": _start,
    "stop": _stop,
    "forget": _forget,
    "restart": _restart,
    "unload": _unload,
    "scale": _scale,
    "keep": _keep,
}

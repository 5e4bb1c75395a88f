"""Deploying and configuring: catalogue, plans, and the configuration file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from yibu.errors import NotReadyError, YibuError
from yibu.gateway.access import allow
from yibu.gateway.console.answers import ConflictError, answer, body_of
from yibu.gateway.console.console import Console
from yibu.gateway.console.jobs import ConsoleJob
from yibu.gateway.manager import Change
from yibu.messages import tr

_TEXT = 1_000_000
_PLAN_SECONDS = 120.0
_PLANS = 2
"""Concurrent plans: each asks a hub, and may read much."""

Text = Annotated[str, Field(max_length=_TEXT)]
Word = Annotated[str, Field(max_length=1000)]


class PlanRequest(BaseModel):
    """What to plan: one of model, script and yaml."""

    model: Annotated[str | None, Field(min_length=1, max_length=1000)] = None
    name: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    engine: Word | None = None
    flags: Annotated[list[Word], Field(max_length=200)] = []
    settings: dict[str, Any] = {}
    script: Text | None = None
    set: Annotated[dict[str, Word], Field(max_length=200)] = {}
    yaml: Text | None = None
    machine: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.x_-]{0,40}$")] = None

    @model_validator(mode="after")
    def _one_of_three(self) -> PlanRequest:
        if sum(bool(one) for one in (self.model, self.script, self.yaml)) != 1:
            msg = tr("one of model, script and yaml is needed")
            raise ValueError(msg)
        return self


class PullRequest(BaseModel):
    """What to pull: a catalogue entry, an id or a source."""

    model: Annotated[str, Field(min_length=1, max_length=1000)]


class FileText(BaseModel):
    """A new text of the file."""

    text: Text


class FileChange(FileText):
    """A new text of the file, and the digest of the text it was made from."""

    sha256: Annotated[str, Field(max_length=64)]


class Rollback(BaseModel):
    """Which entry of the history to restore; the latest by default."""

    until: int | None = None


def add_deploying(router: APIRouter, console: Console) -> None:
    @router.get("/console/api/catalogue", openapi_extra=allow("console"))
    async def catalogue(q: Annotated[str | None, Query()] = None) -> Response:
        found = await asyncio.to_thread(console.manager.catalogue, q or None)
        up = {config.source for config in console.manager.configs()}
        for entry in found:
            sources = {f"{k}:{v}" for k, v in entry["sources"].items() if v}
            entry["up"] = bool(up & {*sources, entry["sources"]["package"]})
        return answer({"models": found})

    @router.post("/console/api/plan", openapi_extra=allow("console"))
    async def plan(request: Request) -> Response:
        wanted = await body_of(request, PlanRequest)
        if len(console.plans) >= _PLANS:
            raise NotReadyError(
                "{limit} plans are being made already",
                limit=_PLANS,
                code="too_many_plans",
                retry_after=5,
            )
        task = asyncio.create_task(console.manager.plan(wanted.model_dump()), name="console plan")
        console.plans.add(task)  # until its thread has ended, whoever still waits for it
        task.add_done_callback(console.plans.discard)
        done, _ = await asyncio.wait({task}, timeout=_PLAN_SECONDS)
        if not done:
            raise NotReadyError(
                "The plan was not made within {seconds:.0f} s: the hub is slow to answer",
                seconds=_PLAN_SECONDS,
                code="plan_timeout",
                retry_after=30,
            )
        return answer(task.result())

    @router.post("/console/api/pull", openapi_extra=allow("console"))
    async def pull(request: Request) -> Response:
        model = (await body_of(request, PullRequest)).model
        cancel = threading.Event()

        def work(job: ConsoleJob) -> Coroutine[Any, Any, None]:
            return console.manager.pull(model, job.report, cancel)

        return answer(console.jobs.begin("pull", [model], work, cancel).plain(), 202)

    _add_file(router, console)


def _add_file(router: APIRouter, console: Console) -> None:
    changing = asyncio.Lock()

    @router.get("/console/api/config", openapi_extra=allow("console"))
    async def read() -> Response:
        found = await asyncio.to_thread(console.manager.read_file)
        before = await asyncio.to_thread(console.manager.served_before)
        return answer({**found, "previous": before[0] if before else None, "history": before})

    @router.post("/console/api/config/check", openapi_extra=allow("console"))
    async def check(request: Request) -> Response:
        given = await body_of(request, FileText)
        return answer(await asyncio.to_thread(console.manager.check_file, given.text))

    @router.post("/console/api/config/diff", openapi_extra=allow("console"))
    async def diff(request: Request) -> Response:
        given = await body_of(request, FileText)
        return answer(await console.manager.compare_file(given.text))

    @router.post("/console/api/config/apply", openapi_extra=allow("console"))
    async def apply(request: Request) -> Response:
        given = await body_of(request, FileChange)
        async with changing:
            try:
                change = await console.manager.write_file(given.text, given.sha256)
            except YibuError as error:
                if error.cause == "changed_meanwhile":
                    raise ConflictError(error.message, hint=error.hint, code=error.cause) from error
                raise
        return answer(_apply(console, "apply", change), 202)

    @router.post("/console/api/config/rollback", openapi_extra=allow("console"))
    async def rollback(request: Request) -> Response:
        given = await body_of(request, Rollback)
        change = await console.manager.change_back(given.until)
        return answer(_apply(console, "rollback", change), 202)


def _apply(console: Console, verb: str, change: Change) -> dict[str, Any]:
    names = [*(model["name"] for model in change["models"]), *change["remove"]]
    return console.jobs.start(verb, names, console.manager.ask("apply", **change)).plain()

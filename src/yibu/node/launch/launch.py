"""Bringing one engine up and taking it down again, on this host; no state is kept here."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from yibu import descriptors
from yibu.engines.base import Binding, Endpoint
from yibu.errors import EngineStartError
from yibu.messages import tr
from yibu.node.launch import probe
from yibu.node.launch.directories import make_directories, temporary_directories
from yibu.node.launch.environ import clean_environment
from yibu.node.launch.explanations import describe_exit, start_error
from yibu.node.launch.phases import LogPhases, telling
from yibu.node.launch.process import EngineProcess
from yibu.node.launch.spec import Host, LaunchSpec, Life, Running
from yibu.node.machine import mig, ports, processes
from yibu.node.machine.gpu import wait_released
from yibu.node.tasks import first_of, to_its_end
from yibu.node.timings import Timings
from yibu.redaction import redact

_log = logging.getLogger(__name__)
T = TypeVar("T")


def endpoint_of(
    spec: LaunchSpec, replica: str, port: int, key: str, process: EngineProcess
) -> Endpoint:
    return Endpoint(
        replica=replica,
        host=ports.LOOPBACK,
        port=port,
        key=key if spec.plan.key_variable is not None else None,
        served_name=spec.plan.served_name,
        alive=partial(processes.alive, process.identity),
    )


async def start(
    host: Host,
    spec: LaunchSpec,
    replica: str,
    port: int,
    key: str,
    on_spawn: Callable[[EngineProcess], None],
    on_phase: Callable[[str], None] = lambda _phase: None,
) -> Running:
    """Spawn the engine and wait until it has given one token.

    ``on_spawn`` is called as soon as the process exists, ``on_phase`` as each phase of its start
    begins. Whatever goes wrong, cancellation included, nothing of the engine is left.

    Raises:
        EngineStartError: it exited or did not become ready within ``start_timeout``, or another
            node has the engines by now.
    """
    if not await host.ownership.decided():
        raise EngineStartError(
            "{replica}: another node owns the engines now", replica=replica, cause="upgraded"
        )
    life = Life.begin(host, replica)
    process = await _spawn(host, spec, replica, port, key, life.log)
    on_spawn(process)
    endpoint = endpoint_of(spec, replica, port, key, process)
    last = _LastAnswer()
    try:
        reader = LogPhases(life.log, life.offset, host.phase_marks(spec.plan.engine))
        async with (
            asyncio.timeout(spec.plan.start_timeout),
            telling(reader, on_phase, host.timings.phase_poll) as answers,
        ):
            canary = await _unless_exited(
                process, wait_ready(host.timings, spec, endpoint, process, last, answers)
            )
        await process.note_shared_memory()
        return Running(process, endpoint, canary, life)
    except _ExitedError as exited:
        waited = time.monotonic() - life.began
        what = tr(
            "{exited_code}, {waited:.1f} s after its start",
            exited_code=describe_exit(exited.code),
            waited=waited,
        )
        await take_down(host, spec, process)
        raise start_error(host, spec, life, what, exited.code, port) from None
    except TimeoutError:
        what = tr(
            "was not ready after {start_timeout:g} s; last answer: {last_text}",
            start_timeout=spec.plan.start_timeout,
            last_text=last.text,
        )
        await take_down(host, spec, process)
        raise start_error(host, spec, life, what, None, port, late=True) from None
    except BaseException:  # cancellation above all: a half-started engine must not stay
        await take_down(host, spec, process)
        raise


async def _spawn(
    host: Host, spec: LaunchSpec, replica: str, port: int, key: str, log: Path
) -> EngineProcess:
    marker = f"{host.home_id}/{replica}/{secrets.token_hex(8)}"
    directories = await asyncio.to_thread(
        make_directories, host.paths, spec.plan, spec.python, marker
    )
    where = (ports.LOOPBACK, port, spec.python, spec.model_path)
    argv, own = spec.plan.bind(Binding(*where, key, directories.cache, spec.extra))
    ours = {"TMPDIR": str(directories.temporary)} if directories.temporary else {}
    env = clean_environment(host.env, {**ours, **own, **spec.env}, marker)
    if spec.gpus:
        env = await asyncio.to_thread(mig.by_uuid, env)
    try:
        return EngineProcess.spawn(argv, env, log, marker, directory=spec.directory)
    except BaseException:  # whatever kept it from starting, nothing of it may stay on disk
        await asyncio.to_thread(temporary_directories(host.paths).remove, marker)
        raise


async def adopt(
    host: Host, spec: LaunchSpec, replica: str, port: int, key: str, process: EngineProcess
) -> Running | None:
    """Take over an engine that an earlier node started; None, and it is gone, when it does not
    give a token within ``Timings.adopt`` seconds.

    A node that runs has watched its engines until now: they are asked for no token, which would wait behind
    the requests that they work on, for as long as these take.
    """
    endpoint = endpoint_of(spec, replica, port, key, process)
    life = Life.begin(host, replica)
    try:
        async with asyncio.timeout(host.timings.adopt):
            handed = host.ownership.owned is None
            work = wait_ready(host.timings, spec, endpoint, process, token=not handed)
            canary = await _unless_exited(process, work)
        await process.note_shared_memory()
        return Running(process, endpoint, canary, life)
    except (_ExitedError, TimeoutError):
        _log.warning("%s: the engine that was left (pid %d) does not serve", replica, process.pid)
        await take_down(host, spec, process, port)
        return None
    except BaseException:  # cancellation too: what was half adopted must not stay
        await take_down(host, spec, process, port)
        raise


def found(
    host: Host, spec: LaunchSpec, replica: str, port: int, key: str, process: EngineProcess
) -> Running:
    """An adopted engine that is not asked for a token, because it sleeps."""
    endpoint = endpoint_of(spec, replica, port, key, process)
    return Running(process, endpoint, None, Life.begin(host, replica))


async def take_down(
    host: Host, spec: LaunchSpec, process: EngineProcess, port: int | None = None
) -> None:
    """End the engine completely, then wait until its port and its GPU memory are free.

    ``port`` is None for an engine that never was ready: it may be another's. A cancellation waits
    until it is done. What another node owns by now is left alone.

    Raises:
        EngineError: a process survived SIGKILL.
    """
    work = partial(_take_down, host, spec, process, port)
    await to_its_end(descriptors.regained(process.marker, work))


async def _take_down(
    host: Host, spec: LaunchSpec, process: EngineProcess, port: int | None
) -> None:
    if not await host.ownership.decided():
        return
    timings = host.timings
    pids = {info.identity.pid for info in await process.refresh()}
    served = port is not None
    grace = spec.plan.stop_grace
    await process.stop(
        grace=grace if served else min(grace, timings.unready_grace),
        orphan_grace=timings.orphan_grace,
        kill=timings.kill,
        whole_group=spec.plan.stop_whole_group or not served,
    )
    await asyncio.to_thread(temporary_directories(host.paths).remove, process.marker)
    if port is not None and not await ports.wait_free(port, timings.port_free):
        _log.warning("port %d is still taken %g s after its engine", port, timings.port_free)
    if not await wait_released(host.gpu_memory, spec.gpus, pids, timings.memory_free):
        _log.warning(
            "GPU memory of %s is still held %g s after its end", spec.model, timings.memory_free
        )


@dataclass(slots=True)
class _LastAnswer:
    """What the engine last said while it was not ready, for the error's text."""

    text: str = "none"


async def wait_ready(
    timings: Timings,
    spec: LaunchSpec,
    endpoint: Endpoint,
    process: EngineProcess,
    last: _LastAnswer | None = None,
    answers: Callable[[], None] = lambda: None,
    *,
    token: bool = True,
) -> probe.TokenRequest | None:
    """Poll the ready path until it answers 200, then ask for one token; runs until cancelled.

    ``answers`` is called when the ready path has answered 200; without ``token`` that is enough.

    Returns the request that gave a token, or None when the engine has none of the capabilities
    that generate something.
    """
    last = last or _LastAnswer()
    while True:
        try:
            answer = await probe.get(endpoint, spec.plan.ready_path, timings.ready_request)
            last.text = tr(
                "GET {path}: HTTP {answer_status}",
                path=spec.plan.ready_path,
                answer_status=answer.status,
            )
            if answer.status == 200:
                await _require_own_port(spec, endpoint, process)
                answers()
                if not token:
                    name = spec.plan.served_name or spec.model
                    return next(iter(probe.token_requests(spec.plan.capabilities, name)), None)
                return await _first_token(timings, spec, endpoint, last)
        except (probe.ProbeError, _NotYetError) as error:
            last.text = str(error)
        await asyncio.sleep(timings.ready_poll)


async def _require_own_port(spec: LaunchSpec, endpoint: Endpoint, process: EngineProcess) -> None:
    """Refuse to believe a stranger on the engine's port. A command of the user's may leave the
    listening to a process that is not its child (a container's proxy), so it is not asked."""
    if spec.plan.environment is None:
        return
    pids = [info.identity.pid for info in await process.refresh()]
    if await asyncio.to_thread(ports.listens, endpoint.port, pids) is False:
        raise _NotYetError(tr("port {port} is answered by another process", port=endpoint.port))


async def _first_token(
    timings: Timings, spec: LaunchSpec, endpoint: Endpoint, last: _LastAnswer
) -> probe.TokenRequest | None:
    name = spec.plan.served_name or spec.model
    refused = ""
    for request in probe.token_requests(spec.plan.capabilities, name):
        last.text = tr("POST {request_path}: no answer yet", request_path=request.path)
        answer = await probe.one_token(endpoint, request, timings.first_token)
        if answer.ok:
            return request
        refused = tr(
            "POST {request_path}: HTTP {answer_status}: {excerpt}",
            request_path=request.path,
            answer_status=answer.status,
            excerpt=redact(answer.excerpt()),
        )
        if answer.status >= 500 or answer.status in (408, 429):
            raise _NotYetError(refused)
    if refused:
        # It lives and it answers, only not to this (a command engine without chat, a model
        # without a chat template): what it can do is for its callers to find out.
        _log.warning("%s is ready, though it gave no token: %s", spec.model, refused)
    return None


class _NotYetError(Exception):
    """The engine answers, but cannot serve yet."""


class _ExitedError(Exception):
    """The main process ended while something was awaited from it."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


async def _unless_exited(process: EngineProcess, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, or raise _ExitedError as soon as the process has ended."""
    async with first_of(process.wait(), work) as (exited, done):
        if exited.done():  # checked first: a foreign server may answer on a stolen port
            raise _ExitedError(exited.result())
        result: T = done.result()
        return result

"""Checks of this machine: a finding a line, each with advice."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from yibu import sockets
from yibu.cli import output
from yibu.cli.words import word
from yibu.errors import NotRunningError, YibuError
from yibu.management.context import Context, open_environments
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.environments.disk import EnvironmentInfo

_LITTLE_DISK = 10 * 10**9
_LITTLE_MEMORY = 4 * 2**30

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; ``advice`` is empty when all is well."""

    subject: str
    level: Level
    found: str
    advice: str = ""


def examine(context: Context) -> list[Finding]:
    """Check everything; the slow checks (network) run concurrently."""
    looks: Sequence[Callable[[], list[Finding]]] = (
        _python,
        _uv,
        lambda: _disk(context.paths.store),
        lambda: _machine(context.env.get("CUDA_VISIBLE_DEVICES")),
        lambda: _reachability(context),
        lambda: _node(context),
        lambda: _environments(context),
    )
    with ThreadPoolExecutor(len(looks)) as pool:
        return [
            finding for findings in pool.map(lambda look: look(), looks) for finding in findings
        ]


def _python() -> list[Finding]:
    version = platform.python_version()
    found = tr("{version} at {executable}", version=version, executable=sys.executable)
    return [Finding(tr("Python"), "ok", found)]


def _uv() -> list[Finding]:
    import uv

    try:
        return [Finding(tr("uv"), "ok", uv.find_uv_bin())]
    except FileNotFoundError:
        advice = tr("Install it again: python -m pip install --force-reinstall uv")
        return [Finding(tr("uv"), "failure", tr("its program is missing"), advice)]


def _disk(store: Path) -> list[Finding]:
    directory = next(parent for parent in (store, *store.parents) if parent.exists())
    free = shutil.disk_usage(directory).free
    found = tr("{free} free for {store}", free=output.size(free), store=store)
    if not os.access(directory, os.W_OK):
        found = tr("{directory} cannot be written", directory=directory)
        advice = tr("Check its owner and permissions, or move it with YIBU_HOME")
        return [Finding(tr("disk"), "failure", found, advice)]
    advice = tr("Models take gigabytes; move it with YIBU_HOME") if free < _LITTLE_DISK else ""
    return [_judged(tr("disk"), found, advice)]


def _judged(subject: str, found: str, advice: str) -> Finding:
    """A finding; a warning if there is advice."""
    return Finding(subject, "warning" if advice else "ok", found, advice)


def _machine(cuda_visible_devices: str | None) -> list[Finding]:
    from yibu.node.machine.hardware import probe, visible

    machine = probe()
    cores = tr("{cores} cores, {arch}", cores=machine.cores, arch=machine.arch)
    memory = tr(
        "{memory_available} of {memory_total} available",
        memory_available=output.size(machine.memory_available),
        memory_total=output.size(machine.memory_total),
    )
    little = machine.memory_available < _LITTLE_MEMORY
    advice = tr("Close other programs, or choose a smaller model") if little else ""
    findings = [Finding(tr("processor"), "ok", cores), _judged(tr("memory"), memory, advice)]
    if not machine.gpus:
        found = tr("none found; models run on the processor")
        advice = tr("Check the driver with: nvidia-smi") if shutil.which("nvidia-smi") else ""
        findings.append(_judged("GPU", found, advice))
    shown = visible(machine.gpus, cuda_visible_devices)
    for gpu in machine.gpus:
        text = tr(
            "{gpu}, {free} of {gpu_total} free",
            gpu=gpu.name,
            free=output.size(gpu.free),
            gpu_total=output.size(gpu.total),
        )
        if gpu.driver:
            text = tr("{text}, driver {driver}", text=text, driver=gpu.driver)
        if gpu not in shown:
            text = tr("{text}, hidden by CUDA_VISIBLE_DEVICES", text=text)
        findings.append(Finding(tr("GPU {gpu_index}", gpu_index=gpu.index), "ok", text))
    return findings


def _reachability(context: Context) -> list[Finding]:
    from yibu.hub.reachability import check_reachability
    from yibu.hub.settings import HubSettings

    settings = HubSettings.from_env(context.env)
    if settings.offline:
        return [Finding(tr("network"), "ok", tr("offline by your own setting; nothing was tried"))]
    return [
        Finding(answer.name, "ok", tr("{host} answers", host=answer.host))
        if answer.reachable
        else Finding(answer.name, "warning", answer.detail, answer.advice)
        for answer in check_reachability(settings)
    ]


def _node(context: Context) -> list[Finding]:
    try:
        status = context.client.call("ps")
    except NotRunningError:
        return [Finding(tr("node"), "ok", tr("not running")), *_left(context), *_port(context)]
    except YibuError as error:
        return [Finding(tr("node"), "failure", error.message, error.hint)]
    pid, url = status["node"]["pid"], status["gateway"]["url"]
    found = tr("process {pid}, {url}", pid=pid, url=url)
    node = Finding(tr("node"), "ok", found)
    return [node, *_usage(status["gateway"].get("unwritten")), *_models(status["models"])]


def _usage(unwritten: dict[str, Any] | None) -> list[Finding]:
    if unwritten is None:
        return []
    from yibu.cli.accounts import unwritten_text

    later = tr("It is written as soon as that is possible; a node that is killed before loses it")
    advice = unwritten.get("hint") or later
    return [Finding(tr("usage"), "warning", unwritten_text(unwritten), advice)]


def _left(context: Context) -> list[Finding]:
    from yibu.node.fleet.left_behind import running

    found = [f"{replica} (PID {pid})" for pid, replica in running(context.paths).items()]
    if not found:
        return []
    advice = tr("End them with: yibu down. Or take them over: yibu up")
    left = tr("without a node: {found}", found=", ".join(found))
    return [Finding(tr("engines left"), "warning", left, advice)]


def _models(models: Sequence[dict[str, Any]]) -> list[Finding]:
    findings = []
    for model in models:
        name, failed = model["name"], model["state"] == "failed"
        advice = (model["hint"] or "") if failed else ""
        found = model["cause"] or word(model["state"])
        level: Level = "failure" if failed else "ok"
        findings.append(Finding(tr("model {name}", name=name), level, found, advice))
    return findings


def _port(context: Context) -> list[Finding]:
    """Whether `yibu up` could listen on the configured address."""
    from yibu.config import file
    from yibu.management.entries import gateway_settings

    try:
        found = file.load(file.find(None, context.directory), env=context.env)
        gateway = gateway_settings(found).gateway
    except YibuError as error:
        return [Finding(tr("configuration"), "failure", error.message, error.hint)]
    if not gateway.port:
        return [Finding(tr("port"), "ok", tr("a free one, as port 0 asks for"))]
    subject = tr("port {port}", port=gateway.port)
    if (fault := sockets.port_fault(gateway.port, gateway.host)) is None:
        return [Finding(subject, "ok", tr("free"))]
    advice = tr("Choose another one: yibu up --port {port}", port=gateway.port + 1)
    text = tr("{host}: {error}", host=gateway.host, error=fault)
    return [Finding(subject, "warning", text, advice)]


def _environments(context: Context) -> list[Finding]:
    from yibu.environments.specs import SPECS

    made = open_environments(context).list()
    findings = [_installed(environment) for environment in made]
    if not made:
        none = tr("none installed; each is when it is first needed")
        findings = [Finding(tr("engines"), "ok", none)]
    missing = SPECS.keys() - {environment.name for environment in made}
    return findings + [f for name in SPECS if name in missing for f in _installable(name)]


def _installed(environment: EnvironmentInfo) -> Finding:
    from yibu.environments import libraries

    subject = tr("engine {name}", name=environment.name)
    lacking = []
    if environment.current:  # older ones stay until they are removed, and are not run
        lacking = libraries.missing(libraries.needed(Path(environment.path)))
    if lacking:
        found = tr(
            "needs {lacking}, which this machine lacks: {environment_path}",
            lacking=", ".join(lacking),
            environment_path=environment.path,
        )
        return Finding(subject, "failure", found, _sentence(libraries.how_to_install(lacking)))
    return Finding(subject, "ok", environment.path)


def _installable(name: str) -> list[Finding]:
    """What prevents an engine that is not installed from running here."""
    from yibu.environments import libraries
    from yibu.environments.specs import SPECS

    lacking = libraries.missing(SPECS[name].system)
    if not lacking:
        return []
    found = tr(
        "not installed; would need {lacking}, which this machine lacks", lacking=", ".join(lacking)
    )
    advice = _sentence(libraries.how_to_install(lacking))
    return [Finding(tr("engine {name}", name=name), "warning", found, advice)]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."

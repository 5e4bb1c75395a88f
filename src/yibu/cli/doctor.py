"""What this machine is like for yibu: a finding a line, each with what to do about it."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from yibu.cli import output
from yibu.cli.context import Context, open_environments
from yibu.errors import NotRunningError, YibuError

if TYPE_CHECKING:
    from yibu.environments.disk import EnvironmentInfo

_REACH_ADVICE = {
    "ModelScope": "Set a proxy (HTTPS_PROXY) or a mirror (MODELSCOPE_ENDPOINT).",
    "Hugging Face": "Set a proxy (HTTPS_PROXY) or a mirror (HF_ENDPOINT), or use ModelScope.",
    "package index": "Set pip's index-url to a mirror, or install engines with --wheels DIR.",
}
_LITTLE_DISK = 10 * 10**9
_LITTLE_MEMORY = 4 * 2**30

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``advice`` is empty when all is well."""

    subject: str
    level: Level
    found: str
    advice: str = ""

    def row(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "level": self.level,
            "found": self.found,
            "advice": self.advice,
        }


def examine(context: Context) -> list[Finding]:
    """Look at everything; the slow looks (network) run side by side."""
    looks: Sequence[Callable[[], list[Finding]]] = (
        _python,
        _uv,
        lambda: _disk(context.paths.store),
        _machine,
        lambda: _reachability(context),
        lambda: _node(context),
        lambda: _environments(context),
    )
    with ThreadPoolExecutor(len(looks)) as pool:
        return [
            finding for findings in pool.map(lambda look: look(), looks) for finding in findings
        ]


def _python() -> list[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return [Finding("Python", "ok", f"{version} at {sys.executable}")]


def _uv() -> list[Finding]:
    import uv

    try:
        return [Finding("uv", "ok", uv.find_uv_bin())]
    except FileNotFoundError:
        advice = "Install it again: python -m pip install --force-reinstall uv"
        return [Finding("uv", "failure", "its program is missing", advice)]


def _disk(store: Path) -> list[Finding]:
    directory = next(parent for parent in (store, *store.parents) if parent.exists())
    free = shutil.disk_usage(directory).free
    found = f"{output.size(free)} free for {store}"
    if free < _LITTLE_DISK:
        return [Finding("disk", "warning", found, "Models take gigabytes; move it with YIBU_HOME.")]
    return [Finding("disk", "ok", found)]


def _machine() -> list[Finding]:
    from yibu.node.hardware import probe

    machine = probe()
    findings = [Finding("processor", "ok", f"{machine.cores} cores, {machine.arch}")]
    memory = (
        f"{output.size(machine.memory_available)} of {output.size(machine.memory_total)} available"
    )
    if machine.memory_available < _LITTLE_MEMORY:
        advice = "Close other programs, or choose a smaller model."
        findings.append(Finding("memory", "warning", memory, advice))
    else:
        findings.append(Finding("memory", "ok", memory))
    if not machine.gpus:
        found = "none found; models run on the processor"
        advice = "" if shutil.which("nvidia-smi") is None else "Check the driver with: nvidia-smi"
        findings.append(Finding("GPU", "warning" if advice else "ok", found, advice))
    for gpu in machine.gpus:
        text = f"{gpu.name}, {output.size(gpu.free)} of {output.size(gpu.total)} free"
        driver = f", driver {gpu.driver}" if gpu.driver else ""
        findings.append(Finding(f"GPU {gpu.index}", "ok", text + driver))
    return findings


def _reachability(context: Context) -> list[Finding]:
    from yibu.hub.reachability import check_reachability
    from yibu.hub.settings import HubSettings

    settings = HubSettings.from_env(context.env)
    if settings.offline:
        return [Finding("network", "ok", "offline by your own setting; nothing was tried")]
    return [
        Finding(answer.name, "ok", f"{answer.host} answers")
        if answer.reachable
        else Finding(
            answer.name, "warning", f"{answer.host}: {answer.detail}", _REACH_ADVICE[answer.name]
        )
        for answer in check_reachability(settings)
    ]


def _node(context: Context) -> list[Finding]:
    from yibu.node.client import Client

    try:
        status = Client(context.paths).call("ps")
    except NotRunningError:
        return [Finding("node", "ok", "not running"), *_left(context), _port(8000)]
    except YibuError as error:
        return [Finding("node", "failure", error.message, error.hint)]
    found = f"pid {status['node']['pid']}, {status['gateway']['url']}"
    return [Finding("node", "ok", found), *_models(status["models"])]


def _left(context: Context) -> list[Finding]:
    from yibu.node.left_behind import running

    found = [f"{replica} (pid {pid})" for pid, replica in running(context.paths).items()]
    if not found:
        return []
    advice = "End them with: yibu down. Or take them over: yibu up"
    return [Finding("engines left", "warning", f"without a node: {', '.join(found)}", advice)]


def _models(models: Sequence[dict[str, Any]]) -> list[Finding]:
    return [
        Finding(
            f"model {model['name']}",
            "failure" if model["state"] == "failed" else "ok",
            model["cause"] or model["state"],
            f"See its log: yibu logs {model['name']}" if model["state"] == "failed" else "",
        )
        for model in models
    ]


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            advice = "Choose another one: yibu up --port 8001"
            return Finding(f"port {port}", "warning", error.strerror or str(error), advice)
    return Finding(f"port {port}", "ok", "free")


def _environments(context: Context) -> list[Finding]:
    from yibu.environments.specs import SPECS

    made = open_environments(context).list()
    findings = [_installed(environment) for environment in made]
    if not made:
        findings = [Finding("engines", "ok", "none installed; each is when it is first needed")]
    names = {environment.name for environment in made}
    return findings + [
        finding for name in SPECS if name not in names for finding in _installable(name)
    ]


def _installed(environment: EnvironmentInfo) -> Finding:
    from yibu.environments import libraries

    subject = f"engine {environment.name}"
    lacking = []
    if environment.current:  # older ones stay until they are removed, and are not run
        lacking = libraries.missing(libraries.needed(Path(environment.path)))
    if lacking:
        found = f"needs {', '.join(lacking)}, which this machine lacks: {environment.path}"
        return Finding(subject, "failure", found, _sentence(libraries.how_to_install(lacking)))
    return Finding(subject, "ok", environment.path)


def _installable(name: str) -> list[Finding]:
    """What keeps an engine that is not installed from running here."""
    from yibu.environments import libraries
    from yibu.environments.specs import SPECS

    lacking = libraries.missing(SPECS[name].system)
    if not lacking:
        return []
    found = f"not installed; would need {', '.join(lacking)}, which this machine lacks"
    advice = _sentence(libraries.how_to_install(lacking))
    return [Finding(f"engine {name}", "warning", found, advice)]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."

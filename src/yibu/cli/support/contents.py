"""The members of ``yibu support``'s archive, and what could not be collected."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from yibu import __version__
from yibu.cli.connect import access
from yibu.cli.support.secrets import masked, register_known
from yibu.config import Config
from yibu.config import file as config_file
from yibu.config.names import replica_id
from yibu.errors import HungNodeError, YibuError
from yibu.management.context import Context, open_environments, open_store
from yibu.messages import tr
from yibu.node import logs
from yibu.paths import log_name
from yibu.redaction import redact, register

_PLAN_SECONDS = 120
_MOST = 4 * 1024 * 1024
"""Bytes of one log."""
_VARIABLES = (
    "YIBU_", "HF_", "HUGGINGFACE_", "MODELSCOPE_", "PIP_", "UV_", "CUDA_", "NVIDIA_", "VLLM_", "OTEL_",
    "LC_", "LANG", "TERM", "PATH", "XDG_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "OMP_", "PYTHON", "LD_", "VIRTUAL_ENV",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One file of the archive."""

    name: str
    about: str
    data: bytes


@dataclass(slots=True)
class Contents:
    """Collected members, and missing ones."""

    members: list[ArchiveMember] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Missing members with the reason."""

    def text(self, name: str, about: str, make: Callable[[], str]) -> None:
        try:
            found = make()
        except (YibuError, OSError, subprocess.SubprocessError, ValueError) as error:
            self.missing[name] = redact(str(error))
            return
        # Whatever made it: nothing goes into the archive that was not looked through.
        self.members.append(ArchiveMember(name, about, redact(found).encode(errors="replace")))

    def json(self, name: str, about: str, make: Callable[[], Any]) -> None:
        self.text(name, about, lambda: _dumped(masked(make())))


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n"


def collect(context: Context, file: Path | None, *, lines: int) -> Contents:
    """Collect everything; ``lines`` of each log (0: no logs)."""
    from yibu.cli.doctor import examine

    found = Contents()
    path, config, fault = _configuration(context, file)
    state = _state(context)
    register_known(context, config, state)
    hung = _register_own_key(context)

    def of_node(make: Callable[[], Any]) -> Any:
        """What a node that hangs is asked once: each question would wait as long."""
        if hung is not None:
            raise hung
        return make()

    about = tr("yibu, Python, the system, packages, engines")
    found.json("versions.json", about, lambda: _versions(context))
    about = tr("what `yibu doctor` finds")
    found.json("doctor.json", about, lambda: [asdict(one) for one in examine(context)])
    found.json(
        "environment.json", tr("variables that matter to yibu"), lambda: _variables(context.env)
    )
    if path is not None:
        found.text(
            "yibu.yaml",
            tr("the configuration as it is read, without comments"),
            lambda: _yaml(path),
        )
    if fault is not None:
        found.missing["configuration"] = fault
    for model in config.models if config is not None else ():
        name = f"plans/{replica_id(model.name, 0)}.json"
        plan = partial(_plan, context, path, model.name)
        about = tr("what `yibu plan {model}` says", model=model.name)
        found.text(name, about, partial(of_node, plan))
    found.json("store.json", tr("models on this disk"), lambda: _stored(context))
    found.json(
        "node.json", tr("the node's state file"), lambda: _required(state, tr("there is none yet"))
    )
    for asked, about in (
        ("ps", tr("what runs")),
        ("reserved", tr("memory that is reserved")),
        ("settings", tr("what the node was started with")),
    ):
        found.json(f"{asked}.json", about, partial(of_node, partial(context.client.call, asked)))
    found.text(
        "metrics.txt",
        tr("/metrics, the engines' too"),
        partial(of_node, lambda: access(context).api.text("/metrics")),
    )
    for log in sorted(context.paths.logs.glob("*.log")) if lines else ():
        about = tr("its last {lines} lines", lines=lines)
        found.text(f"logs/{log_name(log)}.log", about, partial(_log, log, lines))
    return found


def _configuration(
    context: Context, file: Path | None
) -> tuple[Path | None, Config | None, str | None]:
    """The file, what it says, and why it cannot be read."""
    path = config_file.find(file, context.directory)
    try:
        return path, config_file.load(path, env=context.env), None
    except YibuError as error:
        return path, None, redact(str(error))


def _state(context: Context) -> Any:
    try:
        return json.loads((context.paths.state / "node.json").read_bytes())
    except (OSError, ValueError):
        return None


def _required(value: Any, otherwise: str) -> Any:
    if value is None:
        raise YibuError(otherwise)
    return value


def _register_own_key(context: Context) -> HungNodeError | None:
    try:
        register(access(context).key)
    except HungNodeError as error:
        return error
    except YibuError:
        pass  # no node: it has no key either
    return None


def _versions(context: Context) -> dict[str, Any]:
    packages = {one.name: one.version for one in metadata.distributions() if one.name}
    return {
        "yibu": __version__,
        "python": sys.version,
        "executable": sys.executable,
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "packages": dict(sorted(packages.items())),
        "engines": [
            {"name": one.name, "path": str(one.path)} for one in open_environments(context).list()
        ],
    }


def _variables(env: Mapping[str, str]) -> dict[str, str]:
    return {name: env[name] for name in sorted(env) if name.startswith(_VARIABLES)}


def _yaml(path: Path) -> str:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        # Its secrets cannot be told from the rest.
        raise YibuError("it is not YAML, and was left out: it may hold secrets") from None
    text: str = yaml.safe_dump(masked(tree), allow_unicode=True, sort_keys=False)
    return text


def _plan(context: Context, path: Path | None, model: str) -> str:
    """A model's plan, made by a process of its own, so that a failure does not affect other models."""
    words = ["plan", "--json", "--offline", *(["-f", str(path)] if path else []), model]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from yibu.cli.main import main; main()", *words],
        env=dict(context.env), cwd=context.directory, capture_output=True, text=True, check=False,
        timeout=_PLAN_SECONDS,
    )  # fmt: skip
    if not done.stdout.strip():
        raise YibuError(
            done.stderr.strip() or tr("it ended with {returncode}", returncode=done.returncode)
        )
    return _dumped(masked(json.loads(done.stdout)))


def _stored(context: Context) -> list[dict[str, Any]]:
    return [
        {"source": str(one.source), "size": one.model.size, "unverified": one.unverified}
        for one in open_store(context, offline=True).list()
    ]


def _log(path: Path, lines: int) -> str:
    text = "\n".join(logs.tail(path, lines))
    return text[-_MOST:] + "\n"

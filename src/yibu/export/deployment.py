"""What all exports need of a deployment: its file, ports, variables, local paths and GPUs."""

from __future__ import annotations

import hashlib
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yibu import __version__
from yibu.config import Config, ModelConfig, document
from yibu.config.keys import KEYS_VARIABLE, is_loopback
from yibu.engines import registry
from yibu.errors import ConfigError, UsageError
from yibu.redaction import is_secret, is_secret_name, redact

REFERENCE = re.compile(r"\$\{env\.(\w+)\}")
CONFIG_FOLDER = "/etc/yibu"
"""Where yibu.yaml stands in a container."""
DATA, MODELS = "/data", "/models"
"""Volumes: yibu's own files, and the hubs' caches."""
USER = 1000
"""User and group in the image: those of most machines' first user, so that its folders can be used."""
STOP = 60
"""Seconds for engines to end, beyond the drain."""
PASSED = (
    "HF_ENDPOINT", "HF_TOKEN", "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN", "PIP_INDEX_URL",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
"""Variables that decide where models and packages come from; set where the exporting machine needs them."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?")
_FIRST_UNPRIVILEGED, _PORT = 1024, 8000
_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib", "/proc/", "/dev/", "/sys/", "/etc/")


@dataclass(frozen=True, slots=True)
class File:
    """One file of an export."""

    text: str
    mode: int = 0o644


Files = Mapping[str, File]
"""An export: files by their path below its folder."""


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file or folder of this machine that yibu.yaml names."""

    here: Path
    inside: str
    """Its path inside a container."""

    def beside(self, folder: Path) -> str:
        """Its path on a machine with yibu.yaml in ``folder``."""
        if self.inside.startswith(f"{DATA}/"):
            return "~" + self.inside.removeprefix(DATA)
        below = os.path.relpath(self.inside, CONFIG_FOLDER)
        return self.inside if below.startswith("../") else str(folder / below)


@dataclass(frozen=True, slots=True)
class ExportedDeployment:
    """One yibu.yaml, as the exports need it."""

    name: str
    config: Config
    text: str
    """The file as it is written."""
    variables: tuple[str, ...]
    """Variables it refers to as ``${env.NAME}``."""
    local: tuple[LocalPath, ...] = ()
    gpus: int | None = 0
    """Number of GPUs; None: all of the machine's."""
    image: str = f"yibu:{__version__}"

    @property
    def port(self) -> int:
        """The gateway's port for clients."""
        return self.config.gateway.port or _PORT

    @property
    def inner_port(self) -> int:
        """The gateway's port inside a container, where nobody is root."""
        return self.port if self.port >= _FIRST_UNPRIVILEGED else _PORT

    @property
    def sysctl(self) -> str | None:
        """What lets the container's user bind FunASR's port, which no variable moves, below 1024."""
        low = 0 < (self.config.gateway.funasr_port or 0) < _FIRST_UNPRIVILEGED
        return "net.ipv4.ip_unprivileged_port_start" if low else None

    @property
    def has_key(self) -> bool:
        """Whether the file itself says which keys there are, by reference."""
        return bool(self.config.gateway.api_keys)

    @property
    def key_file(self) -> Path | None:
        return self.config.gateway.api_key_file

    @property
    def secrets(self) -> tuple[str, ...]:
        """Variables that must be set and whose values no export contains."""
        wanted = self.variables
        if not self.has_key and self.key_file is None:
            wanted = (KEYS_VARIABLE, *(name for name in wanted if name != KEYS_VARIABLE))
        return wanted

    @property
    def asked(self) -> tuple[str, ...]:
        """Variables to be set on a machine: a key where the gateway's own address needs one."""
        return self.variables if is_loopback(self.config.gateway.host) else self.secrets

    @property
    def stop_seconds(self) -> int:
        return round(self.config.gateway.drain_timeout) + STOP

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def describe(
    config: Config,
    text: str,
    env: Mapping[str, str],
    *,
    name: str = "yibu",
    gpus: int | None = -1,
    image: str | None = None,
    written: Sequence[ModelConfig] | None = None,
) -> ExportedDeployment:
    """The deployment of a file that was loaded; ``gpus``: -1 finds their number from the models.

    ``written``: the models with their paths as the file has them, where those of ``config`` are completed
    for this machine.

    Raises:
        UsageError: the name is none for a container.
        ConfigError: a secret's value stands in the file, and each export would carry it.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "{name!r} is no name for a service: expected up to 50 letters a-z, digits and -, "
            "beginning with a letter.",
            name=name,
        )
    variables = tuple(dict.fromkeys(REFERENCE.findall(text)))
    _refuse_secrets(text, config, variables)
    return ExportedDeployment(
        name=name,
        config=config,
        text=text if text.endswith("\n") else text + "\n",
        variables=variables,
        local=tuple(_local_paths(config.models if written is None else written, env)),
        gpus=_gpus(config.models) if gpus == -1 else gpus,
        image=image or f"yibu:{__version__}",
    )


def placeholders(text: str, env: Mapping[str, str]) -> dict[str, str]:
    """The environment to load a file with where its variables need not be set."""
    return {name: f"${{env.{name}}}" for name in REFERENCE.findall(text)} | dict(env)


def _refuse_secrets(text: str, config: Config, variables: Sequence[str]) -> None:
    raw = document.read(text, str(config.path), {name: f"${{env.{name}}}" for name in variables})
    found = list(dict.fromkeys(_secrets(raw.value, ())))
    if not found:
        return
    lines = "\n".join(f"  line {raw.place(at)[0]}: {'.'.join(map(str, at))}" for at in found)
    raise ConfigError(
        "{path} holds secrets as they are, and an export would carry them:\n{lines}",
        path=config.path,
        lines=lines,
        hint="Write ${env.NAME} in their place, or gateway.api_key_file; then export again",
    )


def _secrets(value: Any, at: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Where texts stand that are a credential by their name, their place or their shape."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _secrets(item, (*at, str(name)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _secrets(item, (*at, number))
        words = " ".join(REFERENCE.sub("", item) for item in value if isinstance(item, str))
        if redact(words) != words:  # a flag, and its value after it
            yield at
    elif isinstance(value, str) and (plain := REFERENCE.sub("", value)).strip():
        named = at[-1] if at and isinstance(at[-1], str) else ""
        by_name = (
            is_secret(named, plain)
            if at[-2:-1] == ("env",)
            else is_secret_name(named.replace("-", "_"))
        )
        if at[:2] == ("gateway", "api_keys") or by_name or redact(plain) != plain:
            yield at


def _gpus(models: Sequence[ModelConfig]) -> int:
    """How many GPUs the models need beside each other, as far as their entries say. Of a group whose models
    take turns the largest counts."""
    highest, needed = 0, dict[str, int]()
    for model in models:
        group = model.group.name if model.group and model.group.swap else f"/{model.name}"
        if model.gpus is not None:
            highest = max([highest, *(index + 1 for index in model.gpus)])
            continue
        engine = registry.candidates(model)[0]
        if engine.for_gpus and model.engine is not None:
            asked = engine.request(model, None)
            each = (asked.tensor_parallel or 1) * asked.pipeline_parallel * asked.data_parallel
            each *= model.autoscale.max if model.autoscale else model.replicas
            needed[group] = max(each, needed.get(group, 0))
        elif str(model.options.get("device", "")).startswith("cuda"):  # beside others on their GPU
            highest = max(highest, 1)
    return max(highest, sum(needed.values()))


def _local_paths(models: Sequence[ModelConfig], env: Mapping[str, str]) -> Iterator[LocalPath]:
    """Files and folders that the models name, each once; programs of the system are the image's."""
    seen: set[str] = set()
    for model in models:
        texts = [model.source, *model.flags, *_texts(model.options)]
        for text in texts:
            if not text or text.startswith(_SYSTEM) or len(text) > 1000 or "\n" in text:
                continue
            home = text.startswith("~/")
            below = DATA if home else CONFIG_FOLDER
            base = env.get("HOME", "/") if home else str(model.directory or Path())
            plain = text.removeprefix("~/")
            here = Path(os.path.normpath(Path(base, plain)))
            inside = os.path.normpath(Path(below, plain))
            if ("/" in text or text == model.source) and inside not in seen and here.exists():
                seen.add(inside)
                yield LocalPath(here, inside)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)

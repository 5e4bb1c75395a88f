"""The configuration as the rest of yibu sees it: frozen, resolved, passed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from yibu.config.engines import EngineName

Origin = Literal["flag", "environment", "file", "default"]
"""Where a resolved value came from, so that "why this one?" has an answer."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The gateway's settings. Without a key it listens on loopback only."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    api_key_file: Path | None = None
    """A file of mode 0600 with one key a line."""
    max_body: int = 32 * 1024 * 1024
    """Bytes of a JSON request."""
    max_upload: int = 512 * 1024 * 1024
    """Bytes of a multipart audio upload."""
    cors_origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Names beside this machine's own that a keyless gateway answers to."""
    request_timeout: float = 600.0
    """Seconds without a byte from the engine before the request is given up."""
    drain_timeout: float = 30.0
    """Seconds that requests in flight get when the node is told to stop."""
    max_connections: int = 4096
    """Clients connected at once; fewer where the system allows fewer open files."""
    funasr_port: int | None = None
    """A second port, on which every websocket is FunASR's: its clients know no path."""
    idle_timeout: float = 300.0
    """Seconds without a message, after which a live session is closed."""
    max_live_audio: float | None = None
    """Seconds of audio in one live session; None: no limit."""
    log_format: Literal["text", "json"] = "text"
    """Format of the node's log."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits; None is no limit."""

    rpm: int | None = None
    """Requests a minute."""
    tpm: int | None = None
    """Tokens a minute, of prompts and answers."""
    concurrency: int | None = None
    """Requests at once."""

    def __bool__(self) -> bool:
        return (self.rpm, self.tpm, self.concurrency) != (None, None, None)


NO_LIMITS = Limits()


Keep = Literal["always", "idle", "manual"]
"""Whether a model stays loaded: always; until nobody has asked for it for a while, and again from
the next request on; as a person says."""


@dataclass(frozen=True, slots=True)
class Group:
    """Models that are not all loaded together although memory would do; as llama-swap has them."""

    name: str
    swap: bool = True
    """Only one of its models is loaded at a time."""
    exclusive: bool = False
    """While one of its models is loaded, none of another group, or of none, stays that is loaded on
    demand."""
    persistent: bool = False
    """Its models do not yield to exclusive groups."""

    def __str__(self) -> str:
        traits = {
            "no swap": not self.swap,
            "exclusive": self.exclusive,
            "persistent": self.persistent,
        }
        return ", ".join([self.name, *(name for name, holds in traits.items() if holds)])

    def excludes(self, other: Group | None, *, on_demand: bool) -> bool:
        """Whether a model of the other group may not be loaded when one of this is; ``on_demand``: it
        is unloaded without requests."""
        if other is not None and other.name == self.name:
            return self.swap
        return self.exclusive and on_demand and not (other is not None and other.persistent)


Sleep = Literal["auto", "1", "2", "off"]


@dataclass(frozen=True, slots=True)
class Autoscale:
    """How many replicas of a model follow the load."""

    min: int = 1
    """0: it is unloaded when nobody asks for it."""
    max: int = 1
    target: float = 0.8
    """Part of its replicas' slots that is to be in use, waiting requests included."""


_NOT_THE_ENGINES = ("replicas", "asleep", "autoscale", "keep", "idle", "preload", "group", "max_concurrency",
                    "max_queue", "queue_timeout", "aliases", "limits")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One entry of ``models:``: a name served to clients, its source, engine and options."""

    name: str
    source: str = ""
    """Empty only for ``engine: command``, whose command may know its own model."""
    engine: EngineName | None = None
    """None: found from the files."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The engine's own options; keys that its schema does not model become flags."""
    flags: tuple[str, ...] = ()
    """Passed to the engine as they stand, after everything else (``yibu up … -- FLAGS``)."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Extra environment for the engine's process; may hold secrets, so it is never logged."""
    gpus: tuple[int, ...] | None = None
    memory: int | None = None
    """Bytes of GPU (or, without one, main) memory that the model may take."""
    replicas: int = 1
    autoscale: Autoscale | None = None
    keep: Keep = "always"
    idle: float = 600.0
    """Seconds without a request after which a model with ``keep: idle`` is unloaded."""
    sleep: Sleep = "auto"
    """Whether its engine, where it can, gives its GPUs' memory up without ending: at the level that
    is named, or that the engine prefers."""
    asleep: float = 6 * 3600.0
    """Seconds asleep after which it is unloaded."""
    preload: bool | None = None
    """Load it when it is brought up; None: where it is kept always."""
    group: Group | None = None
    max_concurrency: int | None = None
    """Requests at once of one replica; None: as its engine says."""
    max_queue: int = 1000
    """Requests that may wait."""
    queue_timeout: float = 600.0
    """Seconds that a request may wait."""
    force: bool = False
    """Start it although the plan says that it does not fit (``yibu up --force``)."""
    offline: bool = False
    """Use only what is on this disk, for its files and its engine (``yibu up --offline``)."""
    aliases: tuple[str, ...] = ()
    """Further names by which clients may ask for it."""
    limits: Limits = NO_LIMITS
    """Limits for all callers together."""
    name_derived: bool = field(default=False, compare=False)
    """The name was taken from the source, so it must not replace another source's model."""
    file: Path | None = field(default=None, compare=False)
    """The yibu.yaml that has it; None for one that was typed."""
    directory: Path | None = None
    """Where relative paths begin, and the engine's working directory: the folder of yibu.yaml,
    or the one in which the command was typed."""

    def runs_as(self, other: ModelConfig) -> bool:
        """Whether the other's engines need not be started anew to serve this: the two differ at most
        in what the gateway and the scheduler make of them."""
        own = {name: getattr(other, name) for name in _NOT_THE_ENGINES}
        return replace(self, **own) == other

    @property
    def on_demand(self) -> bool:
        """Whether requests load it, and it is unloaded without any."""
        scale = self.autoscale
        return self.keep == "idle" or (
            self.keep == "always" and scale is not None and scale.min == 0
        )

    @property
    def stays_loaded(self) -> bool:
        """Whether it is loaded from the start and never unloaded."""
        return self.keep == "always" and not self.on_demand

    @property
    def fewest(self) -> int:
        """The number of replicas of a loaded model without requests."""
        return max(1, self.autoscale.min) if self.autoscale else self.replicas

    @property
    def adapters(self) -> Mapping[str, str]:
        """LoRA adapters by the names that clients ask for, with their sources."""
        lora = self.options.get("lora")
        return lora if isinstance(lora, Mapping) else {}

    @property
    def further_names(self) -> Mapping[str, str]:
        """Further names of the model, with their meaning: an alias means the model, an adapter itself."""
        aliases = dict.fromkeys((name for name in self.aliases if name != self.name), self.name)
        return {**aliases, **{name: name for name in self.adapters}}

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the model, its own first."""
        return (self.name, *self.further_names)


@dataclass(frozen=True, slots=True)
class Config:
    """The resolved configuration."""

    gateway: GatewayConfig = GatewayConfig()
    models: tuple[ModelConfig, ...] = ()
    path: Path | None = None
    """The file it was read from; None when there was none."""
    no_models: bool = False
    """Whether the file says ``models: []``; one without that key may have been emptied by accident."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """``gateway.port`` → ``flag`` and so on, for every gateway setting that is not a default."""
    typed_keys: tuple[str, ...] = field(default=(), repr=False)
    """Those of ``gateway.api_keys`` that stood on the command line."""

    def model(self, name: str) -> ModelConfig | None:
        return next((model for model in self.models if model.name == name), None)

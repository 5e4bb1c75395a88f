"""The protocol through which the gateway sees the node.

It stands below node and gateway, so that neither imports the other. With it the gateway is tested
without processes, and can run inside the node's process or as worker processes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from yibu.config.types import NO_LIMITS, Limits
from yibu.engines.base import Capability, Endpoint
from yibu.engines.requests import UNKNOWN, Abilities

State = Literal[
    "pending",
    "downloading",
    "starting",
    "ready",
    "draining",
    "sleeping",
    "stopped",
    "failed",
    "unloaded",
]
"""Of models and of replicas; only a model without replicas is ``downloading``, or ``unloaded``: it
is loaded when somebody asks for it. ``sleeping``: its process is there, without its GPUs' memory."""

Priority = Literal["interactive", "batch"]
"""Requests of ``batch`` wait for those of ``interactive``, without starving."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of a replica, or of a model that never came to have one."""

    cause: str
    """A key out of a small number: of the library of causes, or an error's own."""
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """Properties of a model's files for listings; empty for a command without files."""

    format: str = ""
    architecture: str = ""
    parameters: int = 0
    quantization: str = ""
    """``Q4_K_M``, ``awq`` …; the stored dtype of a model that is not quantized."""
    size: int = 0
    """Bytes of the weights."""
    trained_context: int | None = None
    """Tokens the model was trained for; ``Route.max_context`` is what is served."""
    takes_tools: bool = False
    """Whether its chat template puts tools into the prompt."""
    thinks: bool | None = None
    """Whether it thinks before it answers, by its chat template; None where that is not known."""


NO_DETAILS = ModelDetails()


@dataclass(frozen=True, slots=True)
class Route:
    """What the gateway needs to know of a model before it asks for a replica."""

    model: str
    engine: str
    capabilities: frozenset[Capability]
    conforming: bool
    """Whether answers need no completing (``LaunchPlan.conforming``)."""
    created: int
    """Unix seconds, for ``/v1/models``."""
    state: State = "pending"
    """For ``/readyz``, listings and metrics."""
    max_context: int | None = None
    abilities: Abilities = UNKNOWN
    """What requests may ask of it (``LaunchPlan.abilities``)."""
    upload_patience: float = 0.0
    """Seconds of silence that a request with a file is allowed; 0: as any other."""
    limits: Limits = NO_LIMITS
    """Limits for all callers together."""
    details: ModelDetails = NO_DETAILS
    failure: Failure | None = None
    """Why there are no replicas, if there are none."""
    replicas: int = 1
    """The most replicas it may have."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Further names that clients may ask for → what they mean: ``model`` for an alias, itself for
    something of its own that the same replicas serve (a LoRA adapter)."""

    def meant(self, name: str) -> str:
        """The meaning of a client's name for it."""
        return self.names.get(name, self.model)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica's numbers for metrics."""

    model: str
    replica: str
    state: State
    restarts: int
    """Restarts after failures."""
    in_flight: int
    """Requests it is working on."""
    failures: Mapping[str, int]
    """Failures by cause since the node was started."""
    failure: Failure | None
    endpoint: Endpoint | None
    """Where it answers; None unless it is ready."""
    start_cause: str = "asked"
    """What its latest start followed: a failure's cause, or ``asked``; ``adopted`` from an earlier
    node; ``woken``."""


class Lease(Protocol):
    """A replica that answers one request, from when it is granted until it is released."""

    @property
    def waits(self) -> bool:
        """Whether it is not granted yet."""
        ...

    async def granted(self) -> None:
        """Return as soon as it is. Who does not wait any longer, being cancelled, has no lease.

        Raises:
            NotReadyError: the model could not be started, or was not free in time.
        """
        ...

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        ...

    def progress(self) -> None:
        """Note that a piece of a streamed answer came: the engine does not hang, however long it takes."""
        ...

    def release(self, *, failed: bool = False) -> None:
        """End the request; ``failed`` when the replica broke the connection, so that the node checks it
        at once."""
        ...


class Backend(Protocol):
    """The fleet as the gateway sees it. One event loop; no call blocks it."""

    def routes(self) -> Sequence[Route]:
        """Every model here once, ready or not."""
        ...

    def route(self, model: str) -> Route | None:
        """The route of one model by any of its names, or None for an unknown one."""
        ...

    def replicas(self) -> Sequence[ReplicaStatus]:
        """Every replica of every model, whatever its state."""
        ...

    def queued(self, model: str) -> int:
        """Requests that wait for a replica of the model."""
        ...

    def acquire(
        self,
        model: str,
        *,
        key: str = "",
        priority: Priority = "interactive",
        weight: int = 1,
        affinity: int | None = None,
        exclude: frozenset[str] = frozenset(),
        slotless: bool = False,
    ) -> Lease:
        """A replica for one request. Where one is ready and has room the lease is granted at once;
        else it has to be waited for.

        Args:
            key: The account that asks; those that wait are answered in turn, by their ``weight``.
            affinity: A hash of the part of the prompt that equal requests have in common; they go to
                the same replica, whose prefix cache has it.
            exclude: Replicas that failed this request already.
            slotless: It takes none of the requests that the engine works on at once.

        Raises:
            NotReadyError: no replica is ready, nor will one be soon (its message has the state or the
                cause in words).
            OverloadedError: too many requests wait already.
            UnknownModelError: the model is not served any more.
        """
        ...

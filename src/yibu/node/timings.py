"""Every wait of the node by name, in seconds, so that none hides in the code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """How long the node waits, for what. The defaults suit engines that load for minutes."""

    # Starting. ``LaunchPlan.start_timeout`` bounds the whole of it.
    ready_poll: float = 0.05
    """Between two readiness requests."""
    ready_request: float = 10.0
    """One readiness request."""
    phase_poll: float = 0.1
    """Between two looks into the log for the phase that a start is in."""
    first_token: float = 120.0
    """The first real token after the ready path answered; compilation may fall into it."""

    adopt: float = 30.0
    """An engine of an earlier node gets so long to show that it still gives tokens."""

    # Stopping. ``LaunchPlan.stop_grace`` stands between SIGTERM and SIGKILL.
    unready_grace: float = 5.0
    """The same, at most, for an engine that never served: it has nothing to finish, and a vLLM that
    imports or loads heeds no SIGTERM to its main process."""
    orphan_grace: float = 2.0
    """From the main process's end to SIGKILL for what it left behind."""
    kill: float = 15.0
    """From SIGKILL until every process is gone; longer means stuck in the kernel."""
    port_free: float = 2.0
    """Until a dead engine's port can be bound again; afterwards another port is taken."""
    memory_free: float = 60.0
    """Until the driver has given a dead engine's GPU memory back."""
    drain: float = 30.0
    """What requests in flight get before their engine is stopped."""

    # Liveness.
    health_every: float = 5.0
    health_request: float = 10.0
    health_failures: int = 3
    """Failed health checks in a row, without any progress between, that mean hung."""
    quiet: float = 2.0
    """Requests in flight and no progress for so long: ask for its health, as often as that."""
    silent: float = 1.0
    """A health check without an answer for so long: no new requests, while another replica of the model
    has room."""
    stall: float = 30.0
    """Requests in flight and no progress for so long: send a canary."""
    idle_canary: float = 300.0
    """No request for so long: send a canary."""
    canary: float = 120.0
    """One token from a busy engine."""
    busy_limit: float = 900.0
    """An engine that answers nothing, but burns CPU, is taken for busy no longer than this."""

    # Crashes.
    backoff_first: float = 1.0
    backoff_cap: float = 60.0
    backoff_jitter: float = 0.2
    """A delay is spread by so much of itself, so that replicas do not restart in step."""
    failure_limit: int = 5
    """Failures within ``failure_window`` that end in ``failed``."""
    failure_window: float = 600.0
    healthy_after: float = 300.0
    """Ready for so long: earlier failures are forgotten."""
    port_retries: int = 3
    """Further ports tried when another process took ours between reserving and binding."""

    # Callers.
    ready_wait: float = 5.0
    """A request waits for a replica that is expected within this time; else 503 at once."""

    # Load.
    scale_down: float = 60.0
    """``autoscale``: so long there was less load before a replica is given up."""

    # Memory.
    min_up: float = 30.0
    """A model that was loaded on demand stays for as long as its start took, up to this, before it
    yields to another."""
    foresight: float = 20.0
    """Placing waits so long for what other models that come up will need; a hub that takes longer to
    say how large a model is holds nobody else up."""

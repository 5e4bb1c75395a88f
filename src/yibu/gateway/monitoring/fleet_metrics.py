"""The models and replicas behind the gateway, as lines of the metrics page.

States are sets of gauges, one a state, of which one is 1, as kube-state-metrics has them: so that
``yibu_replica_state{state="ready"} == 0`` is an alert that fires. Labels are few: names of models
that are up, their replicas, and causes out of the library of causes, which are constants of the
code and never text of a log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from yibu.prometheus import family
from yibu.routing import Backend, Failure, ReplicaStatus, Route, State

_STATES: tuple[State, ...] = get_args(State)
_REPLICA_STATES = tuple(state for state in _STATES if state != "downloading")
_NO_REPLICA = "-"


def fleet_lines(backend: Backend) -> list[str]:
    """Lines of the exposition, without their ends."""
    routes, replicas = backend.routes(), backend.replicas()
    queued = [((route.model,), backend.queued(route.model)) for route in routes]
    return [
        *_model_lines(routes),
        *family("queue_length", "Requests that wait for a replica", "gauge", ("model",), queued),
        *_replica_lines(replicas),
        *_failure_lines(routes, replicas),
    ]


def _model_lines(routes: Sequence[Route]) -> list[str]:
    states = Counter(route.state for route in routes)
    in_state = [((state,), states[state]) for state in _STATES]
    text = "1 for the state that the model is in, 0 for the others"
    of_models = [
        ((route.model, state), int(state == route.state)) for route in routes for state in _STATES
    ]
    return [
        *family("models", "Models by state", "gauge", ("state",), in_state),
        *family("model_state", text, "gauge", ("model", "state"), of_models),
    ]


def _replica_lines(replicas: Sequence[ReplicaStatus]) -> list[str]:
    names = ("model", "replica")
    states = [
        ((one.model, one.replica, state), int(state == one.state))
        for one in replicas
        for state in _REPLICA_STATES
    ]
    restarts = [((one.model, one.replica), one.restarts) for one in replicas]
    in_flight = [((one.model, one.replica), one.in_flight) for one in replicas]
    text = "1 for the state that the replica is in, 0 for the others"
    restarted = "Starts of a replica's engine after it had failed"
    working = "Requests that a replica is working on"
    return [
        *family("replica_state", text, "gauge", (*names, "state"), states),
        *family("replica_restarts_total", restarted, "counter", names, restarts),
        *family("replica_requests_in_flight", working, "gauge", names, in_flight),
    ]


def _failure_lines(routes: Sequence[Route], replicas: Sequence[ReplicaStatus]) -> list[str]:
    names = ("model", "replica", "cause")
    counts = [
        ((one.model, one.replica, cause), number)
        for one in replicas
        for cause, number in sorted(one.failures.items())
    ]
    failures: list[tuple[str, str, Failure]] = [
        *((route.model, _NO_REPLICA, route.failure) for route in routes if route.failure),
        *((one.model, one.replica, one.failure) for one in replicas if one.failure),
    ]
    last = [
        ((model, replica, failure.cause), round(failure.at)) for model, replica, failure in failures
    ]
    text = "Failures of a replica's engine by cause"
    when = "When a replica last failed and why; replica - is a model that never got one"
    return [
        *family("replica_failures_total", text, "counter", names, counts),
        *family("last_failure_timestamp_seconds", when, "gauge", names, last),
    ]

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

from yibu.gateway.monitoring.metrics import head, sample
from yibu.routing import Backend, Failure, ReplicaStatus, Route, State

_STATES: tuple[State, ...] = get_args(State)
_REPLICA_STATES = tuple(state for state in _STATES if state != "downloading")
_NO_REPLICA = "-"


def fleet_lines(backend: Backend) -> list[str]:
    """Lines of the exposition, without their ends."""
    routes, replicas = backend.routes(), backend.replicas()
    return [
        *_model_lines(routes),
        *head("queue_length", "Requests that wait for a replica", "gauge"),
        *(sample("queue_length", ("model",), (r.model,), backend.queued(r.model)) for r in routes),
        *_state_lines(replicas),
        *_count_lines(replicas),
        *_failure_lines(routes, replicas),
    ]


def _model_lines(routes: Sequence[Route]) -> list[str]:
    states = Counter(route.state for route in routes)
    return [
        *head("models", "Models by state", "gauge"),
        *(sample("models", ("state",), (state,), number) for state, number in states.items()),
        *head("model_state", "1 for the state that the model is in, 0 for the others", "gauge"),
        *(
            sample(
                "model_state", ("model", "state"), (route.model, state), int(state == route.state)
            )
            for route in routes
            for state in _STATES
        ),
    ]


def _state_lines(replicas: Sequence[ReplicaStatus]) -> list[str]:
    text = "1 for the state that the replica is in, 0 for the others"
    names = ("model", "replica", "state")
    return [
        *head("replica_state", text, "gauge"),
        *(
            sample("replica_state", names, (one.model, one.replica, state), int(state == one.state))
            for one in replicas
            for state in _REPLICA_STATES
        ),
    ]


def _count_lines(replicas: Sequence[ReplicaStatus]) -> list[str]:
    names = ("model", "replica")
    restarts = "Starts of a replica's engine after it had failed"
    in_flight = "Requests that a replica is working on"
    return [
        *head("replica_restarts_total", restarts, "counter"),
        *(
            sample("replica_restarts_total", names, (one.model, one.replica), one.restarts)
            for one in replicas
        ),
        *head("replica_requests_in_flight", in_flight, "gauge"),
        *(
            sample("replica_requests_in_flight", names, (one.model, one.replica), one.in_flight)
            for one in replicas
        ),
    ]


def _failure_lines(routes: Sequence[Route], replicas: Sequence[ReplicaStatus]) -> list[str]:
    names = ("model", "replica", "cause")
    total, last = "replica_failures_total", "last_failure_timestamp_seconds"
    failures: list[tuple[str, str, Failure]] = [
        *((route.model, _NO_REPLICA, route.failure) for route in routes if route.failure),
        *((one.model, one.replica, one.failure) for one in replicas if one.failure),
    ]
    return [
        *head(total, "Failures of a replica's engine by cause", "counter"),
        *(
            sample(total, names, (one.model, one.replica, cause), number)
            for one in replicas
            for cause, number in sorted(one.failures.items())
        ),
        *head(
            last,
            "When a replica last failed and why; replica - is a model that never got one",
            "gauge",
        ),
        *(
            sample(last, names, (model, replica, failure.cause), round(failure.at))
            for model, replica, failure in failures
        ),
    ]

"""What of the console lives as long as the gateway, whether or not somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from yibu.gateway.console.assets import Assets
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.monitoring.metrics import Metrics
from yibu.gateway.sessions import Authentication


@dataclass(slots=True)
class Console:
    """What the routes of the console have in common."""

    deps: GatewayDeps
    authentication: Authentication
    metrics: Metrics
    ending: Callable[[], bool]
    """Whether the process stops or gives way to another, so that streams have to end."""
    assets: Assets = field(default_factory=Assets)

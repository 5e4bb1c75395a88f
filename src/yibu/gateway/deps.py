"""The gateway's dependencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from yibu import __version__
from yibu.accounts.live import LiveAccounts
from yibu.config import GatewayConfig
from yibu.gateway.manager import Manager
from yibu.gateway.monitoring.node_metrics import NodeMetrics
from yibu.gateway.monitoring.tracing import Tracing
from yibu.routing import Backend


@dataclass(frozen=True, slots=True)
class GatewayDeps:
    """The gateway's dependencies."""

    backend: Backend
    config: GatewayConfig = field(default_factory=GatewayConfig)
    """The settings to start with; ``Gateway.config`` has the current ones."""
    keys: Sequence[str] = field(default=(), repr=False)
    """The configuration's keys, from ``load_keys``."""
    accounts: LiveAccounts | None = None
    """Keys with limits, from the database."""
    own_key: str | None = field(default=None, repr=False)
    """The command line's key."""
    node: NodeMetrics | None = None
    """The node's own numbers, for ``/metrics``."""
    tracing: Tracing | None = None
    manager: Manager | None = None
    """The node, for the console."""
    version: str = __version__

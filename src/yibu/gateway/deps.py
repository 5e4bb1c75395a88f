"""What the gateway is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from yibu import __version__
from yibu.config import GatewayConfig
from yibu.routing import Backend


@dataclass(frozen=True, slots=True)
class GatewayDeps:
    """What the gateway is made of."""

    backend: Backend
    config: GatewayConfig = field(default_factory=GatewayConfig)
    keys: Sequence[str] = field(default=(), repr=False)
    """From ``load_keys``; ``config.api_keys`` alone is not looked at."""
    version: str = __version__

"""The gateway's current settings, and their replacement in a running node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from yibu.config.settings import GatewaySettings
from yibu.errors import UsageError
from yibu.node.handover.holder_link import HolderLink
from yibu.redaction import register

Configure = Callable[[GatewaySettings], Awaitable[None]]
"""Applies other settings to the gateway; raises ConfigError, with nothing changed."""


class CurrentSettings:
    """The settings of a running node; changed as a whole or not at all."""

    def __init__(self, settings: GatewaySettings, secrets: Iterable[str], link: HolderLink) -> None:
        """``secrets`` are the known keys, which no log may show."""
        self.value = settings
        self.handing_over = False
        """Whether another node has read them and is about to take over."""
        self._secrets = tuple(secrets)
        self._link = link
        self._configure: Configure | None = None

    def attach(self, configure: Configure | None) -> None:
        """Apply every later change to the gateway."""
        self._configure = configure

    def as_input(self) -> bytes:
        """The standard input of a node that starts with these settings."""
        return self.value.as_input(self._secrets)

    async def change(self, settings: GatewaySettings, secrets: Iterable[str]) -> None:
        """Use these settings from now on, and in the node that is started after a crash of this one.

        Raises:
            ConfigError: they cannot be used.
            UsageError: the node is being replaced.
        """
        if self.handing_over:
            raise UsageError(
                "The node is being replaced by another one; its settings do not change meanwhile.",
                hint="Try again in a moment",
            )
        register(*secrets)
        if self._configure is not None:
            await self._configure(settings)
        self.value = settings
        self._secrets = tuple(dict.fromkeys((*self._secrets, *secrets)))
        self._link.settings(self.as_input())

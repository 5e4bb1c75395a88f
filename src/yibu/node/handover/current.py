"""The gateway's settings that hold now, and how others take their place in a running node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from yibu.config.settings import Settings
from yibu.errors import UsageError
from yibu.node.handover.holder_link import HolderLink
from yibu.redaction import register

Configure = Callable[[Settings], Awaitable[None]]
"""Has the gateway serve by other settings; raises ConfigError, having changed nothing, where it cannot."""


class CurrentSettings:
    """The one place that has the settings of a running node; changed as a whole, or not at all."""

    def __init__(self, settings: Settings, secrets: Iterable[str], link: HolderLink) -> None:
        """``secrets`` are texts that no log may show: the keys, as far as they are known."""
        self.value = settings
        self.handing_over = False
        """Another node that has read them is about to take this one's place."""
        self._secrets = tuple(secrets)
        self._link = link
        self._configure: Configure | None = None

    def attach(self, configure: Configure | None) -> None:
        """Have the gateway follow every change from now on."""
        self._configure = configure

    def as_input(self) -> bytes:
        """What a node that starts with them reads on its standard input."""
        return self.value.as_input(self._secrets)

    async def change(self, settings: Settings, secrets: Iterable[str]) -> None:
        """Have these hold from now on, also in the node that comes after a crash of this one.

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

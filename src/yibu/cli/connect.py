"""Reaching the running node: its control socket, and through it the gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from yibu.errors import NotRunningError
from yibu.management.context import Context

if TYPE_CHECKING:
    from yibu.cli.api import Api
    from yibu.engines.base import Endpoint


@dataclass(frozen=True, slots=True)
class Access:
    """The owner's access: the gateway's URL, a key for it, and the models' capabilities."""

    url: str
    key: str | None = field(repr=False)
    capabilities: Mapping[str, Sequence[str]]

    @property
    def api(self) -> Api:
        # An HTTP client is a sixth of what a verb takes to start, and most need none.
        from yibu.cli.api import Api

        return Api(self.url, self.key)

    @property
    def endpoint(self) -> Endpoint:
        """The gateway as an endpoint for the engines' client."""
        from yibu.engines.base import Endpoint

        url = urlsplit(self.url)
        return Endpoint("gateway", url.hostname or "127.0.0.1", url.port or 80, key=self.key)


def access(context: Context) -> Access:
    """Ask the node over the control socket, which only its owner can open.

    The key is one that the node made for the command line, so no key of the user's is needed.

    Raises:
        NotRunningError: no node runs in this home.
    """
    return Access(**context.client.call("access"))


def speech_model(context: Context) -> str:
    """The name of the only, or the first, model that transcribes.

    Raises:
        NotRunningError: none is up.
    """
    for model, able in access(context).capabilities.items():
        if "transcriptions" in able:
            return model
    raise NotRunningError(
        "No speech model is up.", hint="Start one with: yibu up iic/SenseVoiceSmall"
    )

"""Which web pages of other origins may call the gateway (``gateway.cors_origins``)."""

from __future__ import annotations

from collections.abc import Iterable

from yibu.gateway.exchange import Exchange, Headers

_HEADERS = (
    b"authorization, content-type, x-request-id, x-api-key, anthropic-version, anthropic-beta, "
    b"anthropic-dangerous-direct-browser-access"
)


class Cors:
    """The Fetch standard's CORS protocol, for a fixed list of origins (``*`` allows all)."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, origin: bytes | None) -> Headers | None:
        """What an answer to ``origin`` carries; None when there is nothing to add."""
        if not self._origins or origin is None:
            return None
        allowed = origin if origin in self._origins else b"*" if b"*" in self._origins else None
        if allowed is None:
            return None
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", b"x-request-id, retry-after"),
            (b"vary", b"origin"),
        ]

    async def preflight(self, exchange: Exchange) -> bool:
        """Answer a preflight request; False when it is none, or not of an allowed origin."""
        if exchange.cors is None or b"access-control-request-method" not in exchange.headers:
            return False
        exchange.cors += [
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", _HEADERS),
            (b"access-control-max-age", b"600"),
        ]
        await exchange.respond(204, [], b"")
        return True

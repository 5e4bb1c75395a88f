"""Which web pages of other origins may call the gateway (``gateway.cors_origins``)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from yibu.errors import ConfigError, RequestError
from yibu.gateway.http.exchange import Exchange, Headers
from yibu.gateway.sessions import from_another_site
from yibu.messages import tr

_HEADERS = (
    b"authorization, content-type, x-request-id, x-api-key, anthropic-version, anthropic-beta, "
    b"anthropic-dangerous-direct-browser-access"
)
_ASKED = re.compile(
    rb"authorization|content-type|accept|user-agent|idempotency-key|x-api-key|x-request-id"
    rb"|(?:x-stainless|anthropic|openai)-[a-z0-9-]{1,64}"
)
"""Request headers that a page may set: those that the official SDKs send."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[^\s/?#@:\[\]*]+)(?::[0-9]{1,5})?")
_LONGEST = 4096

_SIMPLE = frozenset(
    {b"", b"multipart/form-data", b"text/plain", b"application/x-www-form-urlencoded"}
)
"""Content types that a browser sends to another site without a preflight request."""


class OriginNotAllowedError(RequestError):
    """A web page of another site sent a request that browsers send without asking."""

    status = 403
    type = "permission_error"
    default_code = "origin_not_allowed"


class Cors:
    """The Fetch standard's CORS protocol, for a list of origins (``*`` allows all)."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """Raises ConfigError for an invalid origin."""
        self.configure(origins)

    def configure(self, origins: Iterable[str]) -> None:
        """Allow these origins from now on. Raises ConfigError, with nothing changed."""
        self._origins = frozenset(_checked(origin).encode() for origin in origins)

    def headers(self, origin: bytes | None) -> Headers | None:
        """CORS headers of an answer to ``origin``; None when there are none to add."""
        if not self._origins or origin is None:
            return None
        allowed = origin if origin in self._origins else b"*" if b"*" in self._origins else None
        if allowed is None:
            return None
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", b"x-request-id, request-id, retry-after"),
            (b"vary", b"origin"),
        ]

    async def answer_options(self, exchange: Exchange) -> bool:
        """Answer a preflight request of an allowed origin, and ``OPTIONS *``; False for what is neither."""
        if exchange.path == "*":  # what the server as a whole takes (RFC 9110, 9.3.7)
            allowed = b"GET, HEAD, POST, PATCH, DELETE, OPTIONS"
            await exchange.respond(204, [(b"allow", allowed)], b"")
            return True
        if exchange.cors is None or b"access-control-request-method" not in exchange.headers:
            return False
        asked = exchange.headers.get(b"access-control-request-headers", b"")
        exchange.cors += [
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", _allowed_headers(asked)),
            (b"access-control-max-age", b"600"),
        ]
        await exchange.respond(204, [], b"")
        return True

    def check_site(self, exchange: Exchange) -> None:
        """Refuse requests that a page of another site makes a browser send without a preflight.

        Programs send neither ``Origin`` nor ``Sec-Fetch-Site``, and pass.

        Raises:
            OriginNotAllowedError: the page's origin is neither the gateway's own nor configured.
        """
        headers = exchange.headers
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        known = exchange.key != "-"  # no form can send a key, nor a session's token
        if kind not in _SIMPLE or known or exchange.cors is not None:
            return
        origin = headers.get(b"origin")
        if not from_another_site(headers):
            return
        shown = (origin or b"another site").decode("latin-1")[:200]
        raise OriginNotAllowedError(
            "The request comes from a web page of {shown}, which may not call this gateway",
            shown=shown,
            hint=tr("gateway.cors_origins: [{shown}] in yibu.yaml lets its pages in", shown=shown)
            if origin not in (None, b"null")
            else tr("gateway.cors_origins in yibu.yaml lists the origins whose pages may"),
        )


def _checked(origin: str) -> str:
    """The origin as browsers write it: lower case, without a slash at the end."""
    written = origin.strip().lower().removesuffix("/")
    if written not in ("*", "null") and not _ORIGIN.fullmatch(written):
        raise ConfigError(
            "gateway.cors_origins has {origin!r}; expected an origin such as "
            "https://app.example or http://localhost:3000, without a path, or *",
            origin=origin,
        )
    scheme, _, authority = written.partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    return written.removesuffix(default) if default and authority.endswith(default) else written


def _allowed_headers(asked: bytes) -> bytes:
    """The headers that a preflight request asks for, as far as the official SDKs send them."""
    names = [name.strip().lower() for name in asked[:_LONGEST].split(b",")]
    known = [*_HEADERS.split(b", "), *(name for name in names if _ASKED.fullmatch(name))]
    return b", ".join(dict.fromkeys(known))

"""Host names by which the gateway may be called, against DNS rebinding.

A web page of another site cannot read answers of ``127.0.0.1``: its browser keeps to the page's
own origin. But the page's owner may let the name of that site point to 127.0.0.1 a moment later,
and then page and gateway are of one origin. What gives it away is the Host header, which still
has the site's name. Where keys are asked for there is nothing to protect: the page has none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from yibu.errors import RequestError
from yibu.messages import tr

_KNOWN_LIMIT = 256
"""Accepted Host headers that are cached."""

_OWN_DOMAINS = (".localhost", ".internal")
"""Nobody can own a name in these: browsers keep the one on this machine (RFC 6761), and the other
is reserved for private networks. Containers reach their host as host.docker.internal."""


class HostNotAllowedError(RequestError):
    """The Host header has a name that may be another site's."""

    status = 403
    type = "invalid_request_error"
    default_code = "host_not_allowed"


class HostCheck:
    """Checks Host headers; costs a set lookup after a host's first request."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.configure(names)

    def configure(self, names: Iterable[str]) -> None:
        """Accept these names (``gateway.hosts``) beside this machine's own."""
        self._names = frozenset(_plain(name) for name in names)
        self._known: set[bytes | None] = {None}  # HTTP/1.0; no browser leaves it out

    def check(self, host: bytes | None) -> None:
        """Check a request's Host header.

        Raises:
            HostNotAllowedError: it names something else than this machine.
        """
        if host in self._known:
            return
        assert host is not None
        name = _name(host.decode("latin-1"))
        if not self._allowed(name):
            shown = name if len(name) <= 100 else name[:99] + "…"
            raise HostNotAllowedError(
                "This gateway is not called {shown!r}: without an API key it answers to "
                "this machine's names and addresses only, so that no web page can reach "
                "it under a name of its own",
                shown=shown,
                hint=tr(
                    "Ask for 127.0.0.1 or localhost instead; or add the name to gateway.hosts in "
                    "yibu.yaml (hosts: [{shown}]); or set an API key (YIBU_API_KEYS)",
                    shown=_yaml(shown),
                ),
            )
        if len(self._known) < _KNOWN_LIMIT:
            self._known.add(host)

    def _allowed(self, name: str) -> bool:
        if name == "localhost" or name.endswith(_OWN_DOMAINS) or name in self._names:
            return True
        try:
            # A page of an address is of that address's origin: rebinding needs a name.
            ipaddress.ip_address(name.strip("[]").partition("%")[0])
        except ValueError:
            return False
        return True


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    head, colon, port = host.rpartition(":")
    if colon and (port.isdecimal() or not port) and not (":" in head and not head.endswith("]")):
        host = head
    return _plain(host)


def _plain(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _yaml(name: str) -> str:
    return name if name.replace("-", "").replace(".", "").isalnum() else "NAME"

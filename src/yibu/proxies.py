"""Which proxy a URL is fetched through, by the variables that curl, requests and uv know.

``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, lower case before upper case.
"""

from __future__ import annotations

import socket
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from yibu.errors import ConfigError
from yibu.messages import tr
from yibu.redaction import register_urls

_KINDS = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_TRY = 5.0
"""Seconds for finding out whether a proxy is there at all."""


@dataclass(frozen=True, slots=True)
class Proxy:
    url: str = field(repr=False)
    variable: str
    """Where the user has set it."""

    @property
    def address(self) -> str:
        """``socks5://proxy:1080``, without user and password."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def fault(self) -> str:
        """In words, why the proxy cannot be used just now; empty where something listens there."""
        parts = urllib.parse.urlsplit(self.url)
        place = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        try:
            with socket.create_connection(place, _TRY):
                return ""
        except TimeoutError:
            reason = tr("no answer within {command:.0f} s", command=_TRY)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
        return tr(
            "the proxy {address} ({variable}) cannot be reached: {reason}",
            address=self.address,
            variable=self.variable,
            reason=reason,
        )


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of one environment, by the scheme of the URLs that go through them."""

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    bypass: tuple[str, ...] = ()
    """``NO_PROXY``: ``host``, ``.domain``, ``host:port`` or ``*``."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Proxies:
        """Read the environment.

        Raises:
            ConfigError: a proxy's address is none, or of a kind that is not spoken here.
        """
        found = {}
        for scheme in ("http", "https"):
            # Lower case first, as curl has it: HTTP_PROXY can be set by a request's header in CGI.
            names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
            if name := next((name for name in names if env.get(name, "").strip()), None):
                found[scheme] = Proxy(_proxy_url(env[name].strip(), name), name)
        bypass = env.get("no_proxy") or env.get("NO_PROXY") or ""
        return cls(found, tuple(bypass.replace(",", " ").lower().split()))

    def of(self, url: str) -> Proxy | None:
        """The proxy for a URL; None where it is asked directly."""
        parts = urllib.parse.urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
        for entry in self.bypass:
            if entry in ("*", host, f"{host}:{port}"):
                return None
            if host.endswith("." + entry.removeprefix("*").lstrip(".")):
                return None
        return self.by_scheme.get(parts.scheme)

    def fault(self, url: str) -> str:
        """Why nothing comes through the proxy of ``url``; empty where there is none, or it is there."""
        proxy = self.of(url)
        return proxy.fault() if proxy is not None else ""

    def environment(self) -> dict[str, str]:
        """The variables for another program, each proxy spelled as all programs read it."""
        return {
            name: proxy.url
            for scheme, proxy in self.by_scheme.items()
            for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
        }


def _proxy_url(text: str, variable: str) -> str:
    register_urls(text)
    url = text if "://" in text else f"http://{text}"
    scheme, _, rest = url.partition("://")
    # Desktops write socks://, and mean version 5.
    kind = {"socks": "socks5"}.get(scheme.lower(), scheme.lower())
    hint = tr("Write it as {variable}=http://HOST:PORT or socks5://HOST:PORT", variable=variable)
    if kind not in _KINDS:
        raise ConfigError(
            tr(
                "{variable} asks for a proxy of the kind {scheme!r}; known are {kinds}.",
                variable=variable,
                scheme=scheme,
                kinds=", ".join(_KINDS),
            ),
            hint=hint,
        )
    url = f"{kind}://{rest}"
    try:
        parts = urllib.parse.urlsplit(url)
        fits = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(
            tr("{variable} is no proxy's address: {url!r}.", variable=variable, url=url), hint=hint
        )
    return url

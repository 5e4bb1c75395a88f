"""Which proxy a URL is fetched through, and whose certificates are trusted: by the variables that
curl, requests and uv know.

``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, lower case before upper case.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yibu.errors import ConfigError
from yibu.messages import tr
from yibu.redaction import register_urls

_KINDS = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_ENTRY = re.compile(r"(?:\[([^\]]+)\]|([^:]+|[^:]*:[^:]*:.*?))(?::(\d{1,5}))?")
"""``host``, ``host:port``, ``::1``, ``[::1]:port``."""
_TRY = 5.0
"""Seconds to find out whether a proxy is there."""


@dataclass(frozen=True, slots=True)
class Proxy:
    url: str = field(repr=False)
    variable: str
    """The variable that set it."""

    @property
    def address(self) -> str:
        """``socks5://proxy:1080``, without user and password."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def fault(self) -> str:
        """Why the proxy cannot be used now, in words; empty where something listens."""
        parts = urllib.parse.urlsplit(self.url)
        place = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        try:
            with socket.create_connection(place, _TRY):
                return ""
        except TimeoutError:
            reason = tr("no answer within {seconds:g} s", seconds=_TRY)
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
    """``NO_PROXY``: ``host``, ``.domain``, an address, ``10.0.0.0/8``, each with ``:port``; ``*``."""

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
        """The proxy for a URL; None where none is used."""
        parts = urllib.parse.urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
        if any(_covers(entry, parts.hostname or "", port) for entry in self.bypass):
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


def certificates(env: Mapping[str, str]) -> str | None:
    """The file or directory of the certificates to trust; None where the environment names none."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    if file := next((env[name] for name in names if env.get(name)), None):
        return file
    # OpenSSL's own list, of which it passes over what is not there.
    places = env.get("SSL_CERT_DIR", "").split(":")
    return next((each for each in places if each and any(Path(each).glob("*.0"))), None)


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY covers this host."""
    host = host.lower().rstrip(".")
    match = _ENTRY.fullmatch(entry)
    if entry == "*" or match is None:
        return entry == "*"
    name, only = match[1] or match[2], match[3]
    if only and int(only) != port:
        return False
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False  # a name, which nobody looks up for this


def _proxy_url(text: str, variable: str) -> str:
    register_urls(text)
    url = text if "://" in text else f"http://{text}"
    scheme, _, rest = url.partition("://")
    # Desktops write socks://, and mean version 5.
    kind = {"socks": "socks5"}.get(scheme.lower(), scheme.lower())
    hint = tr("Write it as {variable}=http://HOST:PORT or socks5://HOST:PORT", variable=variable)
    if kind not in _KINDS:
        raise ConfigError(
            "{variable} asks for a proxy of the kind {scheme!r}; known are {kinds}.",
            variable=variable,
            scheme=scheme,
            kinds=", ".join(_KINDS),
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
            "{variable} is no proxy's address: {url!r}.", variable=variable, url=url, hint=hint
        )
    return url

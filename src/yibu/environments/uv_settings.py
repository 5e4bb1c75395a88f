"""What the user told pip about indexes, handed to uv, which does not read pip's configuration.

Settings that the user made for uv itself (``UV_DEFAULT_INDEX`` …) win over pip's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from yibu.paths import at_home
from yibu.pipconfig import is_true, local_path, pip_options
from yibu.proxies import certificates
from yibu.redaction import register_urls


@dataclass(frozen=True, slots=True)
class UvSettings:
    """Where packages come from. URLs may hold credentials, so they are kept out of ``repr``."""

    default_index: str | None = field(default=None, repr=False)
    extra_indexes: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    certificate: str | None = None
    proxy: str | None = field(default=None, repr=False)
    trusted_hosts: tuple[str, ...] = ()
    no_index: bool = False

    @classmethod
    def from_pip(
        cls, env: Mapping[str, str], prefix: Path = Path(sys.prefix), etc: Path = Path("/etc")
    ) -> UvSettings:
        """Read pip's effective settings; a file that cannot be read is passed over, as pip does.

        ``prefix`` is the interpreter whose ``pip.conf`` counts as the site's, ``etc`` the machine's.
        """
        values = pip_options(env, "install", prefix=prefix, etc=etc)
        register_urls(*(location for value in values.values() for location in value.split()))
        return cls(
            default_index=values.get("index-url"),
            extra_indexes=_existing(values.get("extra-index-url", "").split()),
            find_links=_existing(values.get("find-links", "").split()),
            certificate=_file(values.get("cert")),
            proxy=values.get("proxy"),
            trusted_hosts=tuple(values.get("trusted-host", "").split()),
            no_index=is_true(values.get("no-index", "")),
        )

    def uv_environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The variables that make uv look where pip would; those set in ``env`` are kept.

        Variables rather than arguments, because every user of a machine can read arguments and
        an index URL may carry a password.
        """
        trusted = self.certificate or certificates(env)  # uv knows SSL_CERT_* alone
        trust = "SSL_CERT_DIR" if trusted and Path(trusted).is_dir() else "SSL_CERT_FILE"
        wanted: dict[str, str | None] = {
            "UV_DEFAULT_INDEX": self.default_index,
            "UV_INDEX": " ".join(self.extra_indexes),
            "UV_FIND_LINKS": ",".join(self.find_links),
            trust: trusted,
            "HTTP_PROXY": self.proxy,
            "HTTPS_PROXY": self.proxy,
            "UV_INSECURE_HOST": " ".join(self.trusted_hosts),
            "UV_NO_INDEX": "1" if self.no_index else None,
            "UV_OFFLINE": "1" if is_true(env.get("YIBU_OFFLINE", "")) else None,
            # pip takes the best version from all indexes together, uv by default from the first
            # that knows the name: a partial extra index would then hide the others.
            "UV_INDEX_STRATEGY": "unsafe-best-match",
        }
        return {
            name: value
            for name, value in wanted.items()
            if value and not any(env.get(spelling) for spelling in _spellings(name))
        }


def _spellings(variable: str) -> tuple[str, ...]:
    """The names under which a user may already have set what ``variable`` says."""
    older = {
        "UV_DEFAULT_INDEX": ("UV_INDEX_URL",),
        "UV_INDEX": ("UV_EXTRA_INDEX_URL",),
        "HTTP_PROXY": ("http_proxy", "ALL_PROXY", "all_proxy"),
        "HTTPS_PROXY": ("https_proxy", "ALL_PROXY", "all_proxy"),
    }
    return (variable, *older.get(variable, ()))


def _existing(locations: Sequence[str]) -> tuple[str, ...]:
    """Leave out local directories that do not exist: pip warns of them, uv fails on some."""
    return tuple(
        location
        for location in locations
        if (path := local_path(location)) is None or path.exists()
    )


def _file(path: str | None) -> str | None:
    return path if path and at_home(path).is_file() else None

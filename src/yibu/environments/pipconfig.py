"""What the user told pip about indexes, handed to uv, which does not read pip's configuration.

The places and their precedence are those of pip's own documentation ("Configuration"): global
files, then the user's, then the interpreter's own, then the file that ``PIP_CONFIG_FILE`` names,
then ``PIP_*`` variables; within a file ``[install]`` wins over ``[global]``. Settings that the
user made for uv itself (``UV_DEFAULT_INDEX`` …) win over pip's.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SECTIONS = ("global", "install")
_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})


@dataclass(frozen=True, slots=True)
class IndexSettings:
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
    ) -> IndexSettings:
        """Read pip's effective settings; a file that cannot be read is passed over, as pip does.

        ``prefix`` is the interpreter whose ``pip.conf`` counts as the site's, ``etc`` the machine's.
        """
        values: dict[str, str] = {}
        for section in _SECTIONS:
            for file in _files(env, prefix, etc):
                values.update(_section(file, section))
        values.update(_variables(env))
        return cls(
            default_index=values.get("index-url"),
            extra_indexes=_existing(values.get("extra-index-url", "").split()),
            find_links=_existing(values.get("find-links", "").split()),
            certificate=_file(values.get("cert")),
            proxy=values.get("proxy"),
            trusted_hosts=tuple(values.get("trusted-host", "").split()),
            no_index=values.get("no-index", "").strip().lower() in _TRUE,
        )

    def uv_environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The variables that make uv look where pip would; those set in ``env`` are kept.

        Variables rather than arguments, because every user of a machine can read arguments and
        an index URL may carry a password.
        """
        wanted: dict[str, str | None] = {
            "UV_DEFAULT_INDEX": self.default_index,
            "UV_INDEX": " ".join(self.extra_indexes),
            "UV_FIND_LINKS": ",".join(self.find_links),
            "SSL_CERT_FILE": self.certificate,
            "HTTP_PROXY": self.proxy,
            "HTTPS_PROXY": self.proxy,
            "UV_INSECURE_HOST": " ".join(self.trusted_hosts),
            "UV_NO_INDEX": "1" if self.no_index else None,
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


def _files(env: Mapping[str, str], prefix: Path, etc: Path) -> Iterator[Path]:
    """Every pip configuration file that counts, weakest first."""
    named = env.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(env.get("HOME") or Path.home())
    if sys.platform == "darwin":
        yield Path("/Library/Application Support/pip/pip.conf")
        support = home / "Library/Application Support/pip"
        user = support if support.is_dir() else home / ".config/pip"
    else:
        for directory in (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
            yield Path(directory) / "pip/pip.conf"
        yield etc / "pip.conf"
        user = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "pip"
    if not (named and Path(named).exists()):
        yield home / ".pip/pip.conf"
        yield user / "pip.conf"
    yield prefix / "pip.conf"
    if named:
        yield Path(named)


def _section(file: Path, section: str) -> dict[str, str]:
    # Raw: a percent sign in a URL is no interpolation.
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}
    if not parser.has_section(section):
        return {}
    return {_key(name): value for name, value in parser.items(section) if value}


def _variables(env: Mapping[str, str]) -> dict[str, str]:
    return {
        _key(name.removeprefix("PIP_")): value
        for name, value in env.items()
        if name.startswith("PIP_") and value
    }


def _key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _existing(places: Sequence[str]) -> tuple[str, ...]:
    """Leave out local directories that do not exist: pip warns of them, uv fails on some."""
    return tuple(place for place in places if (path := _local(place)) is None or path.exists())


def _local(place: str) -> Path | None:
    """The path that a ``file:`` URL or a bare path names; None for anything remote."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(place).expanduser()


def _file(path: str | None) -> str | None:
    return path if path and Path(path).expanduser().is_file() else None

"""Which package indexes a wheel comes from: those that the user's pip and uv would use."""

from __future__ import annotations

import configparser
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

_PYPI = "https://pypi.org/simple"
_CONFIG_SECTIONS = ("global", "download")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where packages come from; URLs may hold passwords."""

    indexes: tuple[str, ...] = field(default=(_PYPI,), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    ca_bundle: str | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> IndexSettings:
        """pip's configuration files and variables, then uv's variables, then PyPI."""
        options = dict(_config_files(env))
        for name, value in env.items():
            if name.startswith("PIP_") and value:
                options[name[4:].lower().replace("_", "-")] = value
        default = (
            options.get("index-url")
            or env.get("UV_DEFAULT_INDEX")
            or env.get("UV_INDEX_URL")
            or _PYPI
        )
        extra = [
            *options.get("extra-index-url", "").split(),
            *env.get("UV_INDEX", "").split(),
            *env.get("UV_EXTRA_INDEX_URL", "").split(),
        ]
        found = (
            []
            if options.get("no-index", "").lower() in ("1", "true", "yes", "on")
            else [default, *extra]
        )
        # uv writes an index as NAME=URL where it has a name.
        indexes = tuple(dict.fromkeys(re.sub(r"^[\w.-]+=(?=\w+:)", "", url) for url in found))
        links = [*options.get("find-links", "").split(), *_commas(env.get("UV_FIND_LINKS", ""))]
        return cls(indexes, tuple(links), options.get("cert") or None)


def _config_files(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Options of pip's configuration files, weakest first (pip's documentation, Configuration)."""
    own = env.get("PIP_CONFIG_FILE", "")
    if own == "/dev/null":
        return
    home = Path(env.get("HOME") or Path.home())
    config_home = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    config_dirs = (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    files: Iterable[Path] = [
        *(Path(directory) / "pip/pip.conf" for directory in config_dirs),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        config_home / "pip/pip.conf",
        Path(sys.prefix) / "pip.conf",
        *([Path(own)] if own else []),
    ]
    for path in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError) as error:
            logger.warning("pip's configuration %s cannot be read: %s", path, error)
            continue
        for section in _CONFIG_SECTIONS:
            if parser.has_section(section):
                for name, value in parser.items(section):
                    yield name.lower().replace("_", "-"), value


def _commas(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]

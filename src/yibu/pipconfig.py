"""The user's own settings for pip, read the way pip reads them, without importing pip.

The places and their precedence are those of pip's documentation ("Configuration"): global files,
then the user's, then the interpreter's own, then the file that ``PIP_CONFIG_FILE`` names, then
``PIP_*`` variables; within a file the command's section wins over ``[global]``.
"""

from __future__ import annotations

import configparser
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from yibu.paths import at_home

_log = logging.getLogger(__name__)

PYPI = "https://pypi.org/simple"
"""The index that is asked where none is configured."""
_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})


def pip_options(
    env: Mapping[str, str],
    command: str,
    *,
    prefix: Path = Path(sys.prefix),
    etc: Path = Path("/etc"),
) -> dict[str, str]:
    """What pip would take for ``command`` (``install``, ``download``), by its long option names.

    ``prefix`` is the interpreter whose ``pip.conf`` counts as the site's, ``etc`` the machine's.
    A file that cannot be read is passed over with a warning, as pip does.
    """
    files = [_sections(file) for file in _files(env, prefix, etc)]
    values: dict[str, str] = {}
    for section in ("global", command):
        for sections in files:
            values.update(sections.get(section, {}))
    values.update(_variables(env))
    return values


def is_true(value: str) -> bool:
    """Whether a switch of pip's or uv's is on."""
    return value.strip().lower() in _TRUE


def local_path(location: str) -> Path | None:
    """The path that a ``file:`` URL or a bare path names; None for anything remote."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else at_home(location)


def _files(env: Mapping[str, str], prefix: Path, etc: Path) -> Iterator[Path]:
    """Every pip configuration file that counts, weakest first."""
    named = env.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(env.get("HOME") or at_home("~"))
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


def _sections(file: Path) -> dict[str, dict[str, str]]:
    try:
        with file.open(encoding="utf-8") as lines:
            # Raw: a percent sign in a URL is no interpolation.
            parser = configparser.RawConfigParser()
            parser.read_file(lines)
    except OSError:
        return {}
    except (configparser.Error, UnicodeDecodeError) as error:
        _log.warning("pip's configuration %s cannot be read: %s", file, error)
        return {}
    return {
        section: {_key(name): value for name, value in parser.items(section) if value}
        for section in parser.sections()
    }


def _variables(env: Mapping[str, str]) -> dict[str, str]:
    return {
        _key(name.removeprefix("PIP_")): value
        for name, value in env.items()
        if name.startswith("PIP_") and value
    }


def _key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")

"""API keys of the configuration: their form, their sources, and where the gateway needs one."""

from __future__ import annotations

import hashlib
import ipaddress
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from yibu.config.types import GatewayConfig
from yibu.errors import ConfigError
from yibu.messages import tr

MINIMUM_LENGTH = 8
KEYS_VARIABLE = "YIBU_API_KEYS"
"""Comma-separated keys, added to those of the file."""


def key_fault(key: str) -> str:
    """Why a text cannot be a key, without repeating it; ``""`` where it can."""
    if len(key) < MINIMUM_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        return tr(
            "{key_count} characters; a key has at least {minimum} printable ASCII "
            "characters without spaces",
            key_count=len(key),
            minimum=MINIMUM_LENGTH,
        )
    return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``; a name other than localhost counts as public."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def keys_of_environment(env: Mapping[str, str]) -> list[str]:
    """The keys in ``YIBU_API_KEYS``."""
    return [key.strip() for key in env.get(KEYS_VARIABLE, "").split(",") if key.strip()]


def digest_of(key: str) -> str:
    """The digest stored for a key: 64 hex digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()


def load_keys(
    config: GatewayConfig, env: Mapping[str, str], key_file: Path | None = None
) -> tuple[str, ...]:
    """Keys from yibu.yaml, from ``YIBU_API_KEYS`` and from a key file (one a line, ``#`` comments).

    Raises:
        ConfigError: the key file is readable by others or missing, or a key cannot be a key.
    """
    keys = [*config.api_keys, *keys_of_environment(env)]
    if key_file is not None:
        keys += read_key_file(key_file)
    for number, key in enumerate(keys, start=1):
        if fault := key_fault(key):
            raise ConfigError(
                "API key number {number} cannot be used: {fault}",
                number=number,
                fault=fault,
                hint="python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes a key",
            )
    return tuple(dict.fromkeys(keys))


def read_key_file(path: Path) -> list[str]:
    """A key a line, ``#`` comments. Raises ConfigError, as :func:`load_keys`."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the key file {path} cannot be read: {error}",
            path=path,
            error=error,
            hint="Write one key a line into it, and chmod 600; or leave it out: yibu key add NAME",
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            "the key file {path} has mode {mode:04o}, so that others on this machine may "
            "read it; expected 0600",
            path=path,
            mode=stat.S_IMODE(mode),
            hint=f"chmod 600 {path}",
        )
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def check_exposure(host: str, keys: Iterable[str], *, accounts: bool = False) -> None:
    """Refuse to listen where others can reach it without a key; ``accounts``: the database has some.

    Raises:
        ConfigError: ``host`` is not a loopback address and there is no key.
    """
    if is_loopback(host) or accounts or any(keys):
        return
    raise ConfigError(
        "gateway.host is {host!r}, which other machines can reach, and no API key is set",
        host=host,
        variable=KEYS_VARIABLE,
        hint="Make one: yibu key add NAME; or set {variable}=… or gateway.api_keys in "
        "yibu.yaml; or use host 127.0.0.1",
    )

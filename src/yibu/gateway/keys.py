"""API keys of clients: where they come from, and how one is checked."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from yibu.config import GatewayConfig
from yibu.config.keys import key_fault
from yibu.errors import ConfigError, UnauthorizedError

KEYS_VARIABLE = "YIBU_API_KEYS"
"""Comma-separated keys, added to those of the file."""


def load_keys(
    config: GatewayConfig, env: Mapping[str, str], key_file: Path | None = None
) -> tuple[str, ...]:
    """Keys from yibu.yaml, from ``YIBU_API_KEYS`` and from a key file (one a line, ``#`` comments).

    Raises:
        ConfigError: the key file is readable by others or missing, or a key cannot be a key.
    """
    keys = [*config.api_keys]
    keys += [key.strip() for key in env.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    if key_file is not None:
        keys += _read_key_file(key_file)
    for number, key in enumerate(keys, start=1):
        if fault := key_fault(key):
            raise ConfigError(
                f"API key number {number} cannot be used: {fault}",
                hint="python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes a key",
            )
    return tuple(dict.fromkeys(keys))


def _read_key_file(path: Path) -> list[str]:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key file {path} cannot be read: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"the key file {path} has mode {stat.S_IMODE(mode):04o}, so that others on this "
            "machine may read it; expected 0600",
            hint=f"chmod 600 {path}",
        )
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def check_exposure(host: str, keys: Iterable[str]) -> None:
    """Refuse to listen where others can reach it without a key.

    Raises:
        ConfigError: ``host`` is not a loopback address and there is no key.
    """
    if is_loopback(host) or any(keys):
        return
    raise ConfigError(
        f"gateway.host is {host!r}, which other machines can reach, and no API key is set",
        hint=f"set {KEYS_VARIABLE}=… or gateway.api_keys in yibu.yaml, or use host 127.0.0.1",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``; a name other than localhost counts as public."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class KeyRing:
    """The keys that open the door; without any, everybody may pass (loopback only)."""

    def __init__(self, keys: Iterable[str]) -> None:
        digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._known = [(digest, digest.hex()[:8]) for digest in digests]

    def check(self, authorization: bytes | None, x_api_key: bytes | None = None) -> str:
        """Return the key's id for logs: the first 8 hex digits of its sha256, ``-`` without keys.

        ``x_api_key`` is where Anthropic's clients put it; of two headers one good key is enough.
        Every key is compared in full, so that the time taken tells nothing of the keys.

        Raises:
            UnauthorizedError: both headers are missing, or no key is one that they give.
        """
        if not self._known:
            return "-"
        if authorization is None and x_api_key is None:
            raise UnauthorizedError(
                "No API key was given: send the header Authorization: Bearer YOUR_KEY, or x-api-key"
            )
        scheme, _, bearer = (authorization or b"").partition(b" ")
        given = (bearer.strip() if scheme.lower() == b"bearer" else b"", x_api_key or b"")
        found = [self._identify(key) for key in given]
        if not any(found):
            raise UnauthorizedError("The API key is not known here")
        return found[0] or found[1]

    def _identify(self, key: bytes) -> str:
        presented = hashlib.sha256(key).digest()
        found = ""
        for digest, identifier in self._known:
            if hmac.compare_digest(digest, presented):
                found = identifier
        return found

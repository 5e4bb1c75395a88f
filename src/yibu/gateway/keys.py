"""API keys of clients: where they come from, and how one is checked."""

from __future__ import annotations

import hashlib
import hmac
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from yibu.accounts.live import ANYBODY, Caller, LiveAccounts
from yibu.accounts.types import OWNER
from yibu.config import GatewayConfig
from yibu.config.keys import is_loopback, key_fault
from yibu.errors import ConfigError, NotReadyError, UnauthorizedError
from yibu.messages import tr

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
                tr("API key number {number} cannot be used: {fault}", number=number, fault=fault),
                hint=tr(
                    "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes a key"
                ),
            )
    return tuple(dict.fromkeys(keys))


def _read_key_file(path: Path) -> list[str]:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            tr("the key file {path} cannot be read: {error}", path=path, error=error),
            hint=tr(
                "write one key a line into it, and chmod 600; or leave it out: yibu key add NAME"
            ),
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            tr(
                "the key file {path} has mode {mode:04o}, so that others on this machine may "
                "read it; expected 0600",
                path=path,
                mode=stat.S_IMODE(mode),
            ),
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
        tr(
            "gateway.host is {host!r}, which other machines can reach, and no API key is set",
            host=host,
        ),
        hint=tr(
            "make one: yibu key add NAME; or set {KEYS_VARIABLE}=… or gateway.api_keys in "
            "yibu.yaml; or use host 127.0.0.1",
            KEYS_VARIABLE=KEYS_VARIABLE,
        ),
    )


class KeyRing:
    """The keys that are accepted: those of the configuration, and those of the accounts. Without
    any, everybody may call (loopback only)."""

    def __init__(
        self,
        keys: Iterable[str],
        accounts: LiveAccounts | None = None,
        own_key: str | None = None,
    ) -> None:
        """``own_key`` is the command line's; it alone does not close the gateway."""
        self._known = [_configured(key) for key in keys]
        self._needed = bool(self._known)
        self._found: dict[bytes, Caller] = {}
        """Keys of the configuration that were found: they hold as long as the process."""
        self._accounts = accounts
        if own_key is not None:
            owner = Caller(OWNER, admin=True, configured=True)
            self._known.append((hashlib.sha256(own_key.encode()).digest(), owner))

    @property
    def closed(self) -> bool:
        """Whether requests need a key."""
        return self._needed or (self._accounts is not None and self._accounts.closed)

    def check(self, authorization: bytes | None, x_api_key: bytes | None = None) -> Caller:
        """Return who calls.

        ``x_api_key`` is where Anthropic's clients put it; of two headers one good key is enough.
        A key of the configuration that was not found before is compared with every one in full, so
        that the time taken tells nothing of them.

        Raises:
            UnauthorizedError: both headers are missing, or no key is one that they give.
            NotReadyError: it may be one of the accounts', which cannot be read.
        """
        if not self.closed:
            return ANYBODY
        if authorization is None and x_api_key is None:
            raise UnauthorizedError(
                tr(
                    "No API key was given: send the header Authorization: Bearer YOUR_KEY, "
                    "or x-api-key"
                )
            )
        scheme, _, bearer = (authorization or b"").partition(b" ")
        refused: UnauthorizedError | None = None
        for key in (bearer.strip() if scheme.lower() == b"bearer" else b"", x_api_key or b""):
            try:
                caller = self._identify(key) if key else None
            except UnauthorizedError as error:
                refused = error
                continue
            if caller is not None:
                return caller
        if refused is None and self._accounts is not None and self._accounts.unreadable:
            raise _unreadable()
        raise refused or UnauthorizedError(tr("The API key is not known here"))

    def digest(self, key: bytes) -> bytes:
        """What stands for a key that ``check`` has let pass: its digest as it is kept here."""
        digest = hashlib.sha256(key).digest()
        if any(hmac.compare_digest(known, digest) for known, _ in self._known):
            return digest
        return (self._accounts and self._accounts.digest(key)) or digest

    def digests(self) -> Iterator[bytes]:
        """Of every key that is accepted.

        Raises:
            NotReadyError: the accounts cannot be read.
        """
        yield from (digest for digest, _ in self._known)
        if self._accounts is not None:
            if self._accounts.unreadable:
                raise _unreadable()
            yield from self._accounts.digests()

    def holder(self, digest: bytes) -> Caller | None:
        """Who has the key of this digest now; None when it is accepted no longer.

        Raises:
            UnauthorizedError: it has expired, or was replaced.
            NotReadyError: the accounts cannot be read.
        """
        for known, caller in self._known:
            if hmac.compare_digest(known, digest):
                return caller
        if self._accounts is None:
            return None
        found = self._accounts.holder(digest)
        if found is None and self._accounts.unreadable:
            raise _unreadable()
        return found

    def _identify(self, key: bytes) -> Caller | None:
        found = self._found.get(key)
        if found is None and self._known:
            presented = hashlib.sha256(key).digest()
            for digest, caller in self._known:
                if hmac.compare_digest(digest, presented):
                    found = self._found[key] = caller
        if found is None and self._accounts is not None:
            return self._accounts.find(key)
        return found


def _unreadable() -> NotReadyError:
    return NotReadyError(
        tr("The API key cannot be checked: the gateway cannot read its keys, and its log says why"),
        code="keys_unavailable",
        retry_after=5,
    )


def _configured(key: str) -> tuple[bytes, Caller]:
    """A key's digest, and its caller: named by the first 8 hex digits of the digest."""
    digest = hashlib.sha256(key.encode()).digest()
    return digest, Caller(digest.hex()[:8], configured=True)

"""API keys of clients, and checking them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator

from yibu.accounts.live import ANYBODY, Caller, LiveAccounts
from yibu.accounts.types import OWNER
from yibu.config.keys import digest_of
from yibu.errors import NotReadyError, UnauthorizedError


class KeyRing:
    """The accepted keys: those of the configuration, and those of the accounts. Without any, everybody
    may call (loopback only)."""

    def __init__(
        self,
        keys: Iterable[str],
        accounts: LiveAccounts | None = None,
        own_key: str | None = None,
    ) -> None:
        """``own_key`` is the command line's; it alone does not close the gateway."""
        self._own: list[tuple[bytes, Caller]] = []
        if own_key is not None:
            owner = Caller(OWNER, admin=True, configured=True)
            self._own = [(hashlib.sha256(own_key.encode()).digest(), owner)]
        self._found: dict[bytes, Caller] = {}
        """Cache of the configuration's keys that were found, until it changes."""
        self._accounts = accounts
        self.configure(map(digest_of, keys))

    def configure(self, digests: Iterable[str], *, exposed: bool = False) -> None:
        """Accept the keys of the configuration with these digests, and no others of it; ``exposed``:
        other machines reach the gateway, which then asks for keys even where it has none."""
        self._exposed = exposed
        # A caller's name are the first 8 hex digits of its key's digest.
        known = [(bytes.fromhex(one), Caller(one[:8], configured=True)) for one in digests]
        self._needed = bool(known)
        self._known = [*known, *self._own]
        self._found = {}

    @property
    def closed(self) -> bool:
        """Whether requests need a key."""
        return self._exposed or self.has_some

    @property
    def has_some(self) -> bool:
        """Whether there are keys, or may be."""
        return self._needed or (self._accounts is not None and self._accounts.closed)

    def check(self, authorization: bytes | None, x_api_key: bytes | None = None) -> Caller:
        """Return who calls.

        ``x_api_key`` is where Anthropic's clients put it; of two headers one good key is enough.
        A key of the configuration that was not found before is compared with every one in full, so
        that the time taken tells nothing of them.

        Raises:
            UnauthorizedError: both headers are missing, or no key is one that they give.
            NotReadyError: it may be one of the accounts', which cannot be read; or none may be needed.
        """
        if not self.closed:
            return ANYBODY
        unreadable = self._accounts is not None and self._accounts.unreadable
        if authorization is None and x_api_key is None:
            if unreadable and not self._needed:
                raise _unreadable()
            raise UnauthorizedError(
                "No API key was given: send the header Authorization: Bearer YOUR_KEY, or x-api-key"
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
        if refused is None and unreadable:
            raise _unreadable()
        raise refused or UnauthorizedError("The API key is not known here")

    def digest(self, key: bytes) -> bytes:
        """The stored digest of a key that ``check`` has accepted."""
        digest = hashlib.sha256(key).digest()
        if any(hmac.compare_digest(known, digest) for known, _ in self._known):
            return digest
        return (self._accounts and self._accounts.digest(key)) or digest

    def digests(self) -> Iterator[bytes]:
        """The digest of every accepted key.

        Raises:
            NotReadyError: the accounts cannot be read.
        """
        yield from (digest for digest, _ in self._known)
        if self._accounts is not None:
            if self._accounts.unreadable:
                raise _unreadable()
            yield from self._accounts.digests()

    def holder(self, digest: bytes) -> Caller | None:
        """The current holder of the key with this digest; None when it is no longer accepted.

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
        "API keys cannot be checked: the gateway cannot read them, and its log says why",
        hint="On the gateway's machine: yibu logs node",
        code="keys_unavailable",
        retry_after=5,
    )

"""Keys: creating them, and the digests that are stored.

A key is 256 random bits, so that nobody can try all of them, however fast the hash: a slow password
hash (bcrypt, argon2) would only cost every request some milliseconds. What is kept is BLAKE2b with a
salt of each key's own, so that the same key in two databases has two digests.
"""

from __future__ import annotations

import hashlib
import secrets

_MARK = "yibu-"
PREFIX_LENGTH = len(_MARK) + 8
"""Characters of a key that are shown: 48 of its bits. 208 stay secret."""
SALT_BYTES = hashlib.blake2b.SALT_SIZE


def new_key() -> str:
    """A new random key."""
    return _MARK + secrets.token_urlsafe(32)


def new_salt() -> bytes:
    return secrets.token_bytes(SALT_BYTES)


def prefix_of(key: bytes) -> bytes:
    return key[:PREFIX_LENGTH]


def digest_of(key: bytes, salt: bytes) -> bytes:
    """The stored digest of a key: 32 bytes."""
    return hashlib.blake2b(key, digest_size=32, salt=salt).digest()

"""Hashes of files, and comparing them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yibu.errors import PullCancelledError, VerificationError
from yibu.messages import tr

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Expected:
    """What a hub, a wheel or a pin says about a file; None where unknown."""

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    """The id of a git blob: SHA-1 of ``blob SIZE\\0`` and the bytes (git-scm.com, Git Objects)."""


@dataclass(frozen=True, slots=True)
class Digest:
    size: int
    sha256: str
    git_sha1: str | None = None


def digest(
    path: Path,
    *,
    git: bool = False,
    cancel: threading.Event | None = None,
    count: Callable[[int], None] = lambda _: None,
) -> Digest:
    """Read the file once; ``count`` is told of every block's bytes.

    Raises:
        PullCancelledError: ``cancel`` was set.
    """
    sha256 = hashlib.sha256()
    size = path.stat().st_size
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if git else None
    read = 0
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while filled := file.readinto(buffer):
            if cancel is not None and cancel.is_set():
                raise PullCancelledError("Reading {path} was cancelled.", path=path)
            sha256.update(buffer[:filled])
            if sha1 is not None:
                sha1.update(buffer[:filled])
            read += filled
            count(filled)
    return Digest(read, sha256.hexdigest(), sha1.hexdigest() if sha1 else None)


def check(name: str, path: Path, expected: Expected, **reading: object) -> Digest:
    """Read ``path`` and compare it with what is expected.

    Raises:
        VerificationError: it is something else.
        PullCancelledError: cancelled while reading.
    """
    git = expected.git_sha1 is not None and expected.sha256 is None
    found = digest(path, git=git, **reading)  # type: ignore[arg-type]  # digest's own keywords
    if difference := differs(found, expected):
        raise VerificationError(
            "{file}: {reason}.",
            file=name,
            reason=difference,
            hint="Run the same command again; if it stays so, the hub's file is broken",
        )
    return found


def differs(found: Digest, expected: Expected) -> str:
    """How ``found`` differs from ``expected``, in words; empty where it does not."""
    if found.size == 0 and expected.size != 0 and expected.sha256 not in (None, EMPTY_SHA256):
        return tr("zero bytes came, expected sha256 {expected}", expected=expected.sha256)
    if expected.size is not None and found.size != expected.size:
        return tr(
            "found {found_size} bytes, expected {expected_size}",
            found_size=found.size,
            expected_size=expected.size,
        )
    if expected.sha256 is not None and found.sha256 != expected.sha256.lower():
        return tr(
            "found sha256 {found}, expected {expected}",
            found=found.sha256,
            expected=expected.sha256.lower(),
        )
    if (
        expected.sha256 is None
        and expected.git_sha1 is not None
        and found.git_sha1 != expected.git_sha1
    ):
        return tr(
            "found git blob {found}, expected {expected}",
            found=found.git_sha1,
            expected=expected.git_sha1,
        )
    return ""


def md5_of(path: Path) -> str:
    """The file's MD5, which S3-like stores use as ETag."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

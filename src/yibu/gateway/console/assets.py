"""The page's files: read once, compressed, and named so that browsers may keep them for good."""

from __future__ import annotations

import gzip
import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import Response


FOLDER = Path(__file__).parents[2] / "console"
INDEX = "index.html"
_BASE = b"__BASE__"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""Content types of the files that are served; other files are not."""
_PACKED = frozenset({".png", ".woff2", ".ico"})
"""Types that are compressed already."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: "
    "blob:; font-src 'self'; media-src 'self' blob:; connect-src 'self'; worker-src "
    "'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_GUARDS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
}
_REVALIDATE = "no-cache"
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    packed: bytes | None
    kind: str
    etag: str


@dataclass(frozen=True, slots=True)
class _Loaded:
    stamp: tuple[tuple[str, int, int], ...]
    """Names, sizes and times of the files that were read."""
    digest: str
    files: dict[str, _Asset]


@dataclass(slots=True)
class Assets:
    """The files of one folder. Methods block; files are read again after a change."""

    folder: Path = FOLDER
    _loaded: _Loaded | None = None
    _loading: threading.Lock = field(default_factory=threading.Lock)

    def page(self, accepts: str, known: str | None) -> Response | None:
        """The page itself; None where this installation has none."""
        loaded = self._current()
        return _answer(loaded.files.get(INDEX), accepts, known, _REVALIDATE)

    def file(self, digest: str, name: str, accepts: str, known: str | None) -> Response | None:
        """One of its files; None for what is not served. ``known`` is If-None-Match."""
        loaded = self._loaded or self._current()
        if digest != loaded.digest:
            loaded = self._current()
        keep = _FOR_GOOD if digest == loaded.digest else _REVALIDATE
        return _answer(loaded.files.get(name), accepts, known, keep)

    def _current(self) -> _Loaded:
        with self._loading:
            found = [
                file
                for file in sorted(self.folder.rglob("*"))
                if file.suffix in _TYPES and file.is_file()
            ]
            stamp = tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in found)
            if self._loaded is None or self._loaded.stamp != stamp:
                self._loaded = self._read(found, stamp)
            return self._loaded

    def _read(self, found: list[Path], stamp: tuple[tuple[str, int, int], ...]) -> _Loaded:
        contents = {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in found}
        whole = hashlib.sha256()
        for name, content in contents.items():
            whole.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        digest = whole.hexdigest()[:16]
        if INDEX in contents:
            base = f"/console/assets/{digest}".encode()
            contents[INDEX] = contents[INDEX].replace(_BASE, base)
        return _Loaded(stamp, digest, {n: _asset(n, content) for n, content in contents.items()})


def _asset(name: str, content: bytes) -> _Asset:
    suffix = Path(name).suffix
    packed = None if suffix in _PACKED else gzip.compress(content, 9, mtime=0)
    if packed is not None and len(packed) >= len(content):
        packed = None
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _Asset(content, packed, _TYPES[suffix], etag)


def _answer(asset: _Asset | None, accepts: str, known: str | None, keep: str) -> Response | None:
    from fastapi import Response  # heavy: the node is to listen before it is imported

    if asset is None:
        return None
    headers = {**_GUARDS, "cache-control": keep, "etag": asset.etag, "vary": "accept-encoding"}
    tags = [tag.strip().removeprefix("W/") for tag in (known or "").split(",")]
    if asset.etag in tags or "*" in tags:
        return Response(b"", 304, headers, asset.kind)
    content = asset.content
    if asset.packed is not None and _takes_gzip(accepts):
        content = asset.packed
        headers["content-encoding"] = "gzip"
    return Response(content, 200, headers, asset.kind)


def _takes_gzip(accepts: str) -> bool:
    for part in accepts.lower().split(","):
        coding, _, parameter = part.partition(";")
        refused = parameter.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000")
        if coding.strip() in ("gzip", "*"):
            return not refused
    return False

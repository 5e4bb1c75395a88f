"""Wheels made for tests."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping


def make_wheel(
    dist: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    recorded: Mapping[str, bytes] | None = None,
    links: tuple[str, ...] = (),
) -> bytes:
    """A wheel's bytes. ``recorded``: what RECORD claims instead; ``links``: names stored as links."""
    info = f"{dist}-{version}.dist-info"
    rows = []
    for name, data in {**files, **(recorded or {})}.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o120777 if name in links else 0o100644) << 16
            archive.writestr(entry, data)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "\n".join(rows) + "\n")
    return buffer.getvalue()

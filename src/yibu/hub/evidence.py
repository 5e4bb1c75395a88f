"""What a response's headers say about its file, where the listing says nothing."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from yibu.hub.digest import Expected

if TYPE_CHECKING:
    import requests

_HEX = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Evidence:
    expected: Expected = field(default_factory=Expected)
    md5: str | None = None
    """An S3-like store's ETag, which is the content's MD5 unless it is encrypted: equal, it proves
    the bytes; unequal, it proves nothing."""
    version: str = ""
    """Values that change with the file, a line each: its ETag and modification time."""


def evidence(response: requests.Response) -> Evidence:
    """Hashes and size of the whole file, from the answer and the redirects that led to it.

    ``X-Linked-ETag`` and ``X-Linked-Size`` are Hugging Face's, and its mirrors', for LFS files; an
    ETag of 64 hexadecimal digits is a SHA-256, of 40 beside ``X-Repo-Commit`` a git blob's id.
    """
    found = Evidence()
    for answer in (*response.history, response):
        headers = answer.headers
        linked = _tag(headers.get("X-Linked-ETag", ""))
        own = _tag(headers.get("ETag", ""))
        for tag, from_hub in ((linked, True), (own, "X-Repo-Commit" in headers)):
            if len(tag) == 64:
                found = replace(found, expected=replace(found.expected, sha256=tag))
            elif len(tag) == 40 and from_hub:
                found = replace(found, expected=replace(found.expected, git_sha1=tag))
            elif len(tag) == 32 and answer is response:
                found = replace(found, md5=tag)
        size = headers.get("X-Linked-Size", "")
        if size.isascii() and size.isdigit():
            found = replace(found, expected=replace(found.expected, size=int(size)))
    if (md5 := response.headers.get("Content-MD5")) and response.status_code == 200:
        with contextlib.suppress(binascii.Error):  # not the digest that it should be
            found = replace(found, md5=base64.b64decode(md5, validate=True).hex())
    etag = response.headers.get("ETag", "").strip().removeprefix("W/")
    version = (etag, response.headers.get("Last-Modified", "").strip())
    return replace(found, version="\n".join(filter(None, version)))


def _tag(value: str) -> str:
    """The digits of a strong entity tag; empty for any other."""
    tag = value.strip()
    if tag.startswith("W/"):
        return ""
    tag = tag.strip('"').lower()
    return tag if _HEX.fullmatch(tag) else ""

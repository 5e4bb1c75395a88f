"""Refuses request heads that two HTTP implementations could read differently.

httptools parses; what it lets pass and h11 does not is refused here, so that the gateway and
whatever stands in front of it always agree where a request ends and whom it is for.
"""

from __future__ import annotations

import re

from yibu.errors import InvalidRequestError
from yibu.messages import tr

Headers = list[tuple[bytes, bytes]]

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256

_TARGET = re.compile(rb"[\x21-\x7e]+")


class BadRequestError(InvalidRequestError):
    """The bytes are not an HTTP/1.1 request, or could be read in two ways."""

    default_code = "invalid_http"


class HeadTooLargeError(InvalidRequestError):
    """The request's line and headers, or its trailers, are too large or too many."""

    status = 431
    default_code = "headers_too_large"


def too_large() -> HeadTooLargeError:
    return HeadTooLargeError(
        tr(
            "The request's headers or trailers exceed {MAX_HEAD_BYTES} bytes or "
            "{MAX_HEADERS} lines",
            MAX_HEAD_BYTES=MAX_HEAD_BYTES,
            MAX_HEADERS=MAX_HEADERS,
        )
    )


def check_head(method: bytes, target: bytes, version: str, headers: Headers) -> int | None:
    """The length of the request's body; None when it is chunked.

    ``headers`` have names in lower case.

    Raises:
        BadRequestError: the head is ambiguous or not HTTP/1.0 or 1.1.
        HeadTooLargeError: there are too many headers.
    """
    if version not in {"1.1", "1.0"}:
        raise BadRequestError(
            tr("The request says HTTP/{version}; expected HTTP/1.1", version=version)
        )
    if len(headers) > MAX_HEADERS:
        raise too_large()
    if method == b"CONNECT":
        raise BadRequestError(tr("This is no proxy: CONNECT is not served"))
    if _TARGET.fullmatch(target) is None:
        raise BadRequestError(tr("The request's target has bytes that a URL cannot have"))
    hosts = 0
    length: int | None = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            _check_coding(value, version, first=length is not None)
            length = None
    if hosts > 1 or (not hosts and version == "1.1"):
        raise BadRequestError(tr("The request has {hosts} Host headers; expected one", hosts=hosts))
    return length


def _check_coding(value: bytes, version: str, *, first: bool) -> None:
    if value.lower() != b"chunked" or version == "1.0" or not first:
        raise BadRequestError(
            tr("The Transfer-Encoding is not 'chunked', once, in HTTP/1.1; nothing else is served")
        )

"""Refuses request heads that two HTTP implementations could read differently.

httptools parses; what it lets pass and h11 does not is refused here, so that the gateway and
whatever stands in front of it always agree where a request ends and whom it is for.
"""

from __future__ import annotations

import base64
import binascii
import re

from yibu.errors import InvalidRequestError
from yibu.gateway.envelope import UpgradeRequiredError

Headers = list[tuple[bytes, bytes]]

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256

_TARGET = re.compile(rb"[\x21-\x7e]+")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w.:%]+\])(?::[0-9]{0,5})?", re.ASCII)


class BadRequestError(InvalidRequestError):
    """The bytes are not an HTTP/1.1 request, or could be read in two ways."""

    default_code = "invalid_http"


class HeadTooLargeError(InvalidRequestError):
    """The request's line and headers, or its trailers, are too large or too many."""

    status = 431
    default_code = "headers_too_large"


class ExpectationFailedError(InvalidRequestError):
    """The request's Expect header is not ``100-continue``."""

    status = 417
    default_code = "expectation_failed"


def too_large() -> HeadTooLargeError:
    return HeadTooLargeError(
        "The request's headers or trailers exceed {max_head_bytes} bytes or {max_headers} lines",
        max_head_bytes=MAX_HEAD_BYTES,
        max_headers=MAX_HEADERS,
    )


def check_head(method: bytes, target: bytes, version: str, headers: Headers) -> int | None:
    """The length of the request's body; None when it is chunked.

    ``headers`` have names in lower case.

    Raises:
        BadRequestError: the head is ambiguous or not HTTP/1.0 or 1.1.
        HeadTooLargeError: there are too many headers.
        ExpectationFailedError: it expects what nothing here does.
    """
    if version not in {"1.1", "1.0"}:
        raise BadRequestError("The request says HTTP/{version}; expected HTTP/1.1", version=version)
    if len(headers) > MAX_HEADERS:
        raise too_large()
    if method == b"CONNECT":
        raise BadRequestError("This is no proxy: CONNECT is not served")
    if _TARGET.fullmatch(target) is None:
        raise BadRequestError("The request's target has bytes that a URL cannot have")
    hosts: list[bytes] = []
    length: int | None = 0
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            _check_coding(value, version, first=length is not None)
            length = None
        elif name == b"expect" and value.lower() != b"100-continue":
            raise ExpectationFailedError(
                "The request has Expect: {value}; only 100-continue is known",
                value=value[:100].decode("latin-1"),
            )
    _check_host(method, target, version, hosts)
    return length


def _check_host(method: bytes, target: bytes, version: str, hosts: list[bytes]) -> None:
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise BadRequestError(
            "The request has {hosts} Host headers; expected one", hosts=len(hosts)
        )
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise BadRequestError("The Host header is not a name or address, with or without a port")
    if target[:1] != b"/":
        _check_whole_target(method, target, hosts)


def _check_whole_target(method: bytes, target: bytes, hosts: list[bytes]) -> None:
    """Check that an absolute target names the same host as the Host header (RFC 9112, 3.2.2)."""
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        if target != b"*" or method != b"OPTIONS":
            raise BadRequestError("The request's target is neither a path nor an http:// URL")
    elif hosts and absolute[1].lower() != hosts[0].lower():
        raise BadRequestError("The request's target and its Host header name different hosts")


def check_websocket(method: bytes, headers: Headers, length: int | None) -> None:
    """Refuse an invalid websocket handshake (RFC 6455); ``length`` is the body's.

    Raises:
        BadRequestError: it is none.
        UpgradeRequiredError: it is one of another version of the protocol.
    """
    given = dict(headers)
    if given.get(b"sec-websocket-version") != b"13":
        raise UpgradeRequiredError("Sec-WebSocket-Version is not 13, and no other is served")
    try:
        key = base64.b64decode(given.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        key = b""
    if method != b"GET" or length != 0 or len(key) != 16:
        raise BadRequestError(
            "A websocket is opened by GET without a body, with 16 bytes in base64 as "
            "Sec-WebSocket-Key"
        )


def _check_coding(value: bytes, version: str, *, first: bool) -> None:
    if value.lower() != b"chunked" or version == "1.0" or not first:
        raise BadRequestError(
            "The Transfer-Encoding is not 'chunked', once, in HTTP/1.1; nothing else is served"
        )

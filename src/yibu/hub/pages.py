"""Answers that do not come from the hub: web pages, and errors of proxies and networks."""

from __future__ import annotations

import re
import urllib.parse
from typing import TYPE_CHECKING

from yibu.errors import HubUnreachableError
from yibu.messages import tr

if TYPE_CHECKING:
    import requests

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 528)})
"""From 520 on: those of Cloudflare, which mirrors stand behind."""


class WebPageError(HubUnreachableError):
    """A web page came instead of a file or list."""


def is_page(start: bytes) -> bool:
    """Whether bytes begin a web page."""
    text = start[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<script"))


def may_be_page(path: str) -> bool:
    """Whether a repository's file may be a web page: documentation, by its name."""
    return path.lower().endswith((".html", ".htm", ".xhtml", ".md", ".txt", ".svg", ".xml"))


def web_page(what: str, url: str, response: requests.Response, start: bytes) -> WebPageError:
    """The error for a web page that came instead of something else."""
    host = host_of(response.url or url)
    if host != host_of(url):
        host = tr("{host} (to which {url} led)", host=host, url=host_of(url))
    return WebPageError(_page_message(host, what, start), hint=_PAGE_HINT)


def not_the_hub(
    error: BaseException | None, status: int | None, text: object, host: str, what: str
) -> HubUnreachableError | None:
    """The network's error where a library got its answer instead of the hub's: ``text`` is the body that
    came with ``status``; without one, it is looked for in the exception and those behind it."""
    while text is None and error is not None:
        text = getattr(error, "doc", None)  # json.JSONDecodeError's, and requests'
        error = error.__cause__ or error.__context__
    start = text.encode() if isinstance(text, str) else b""
    return of_network(status or 200, host, what, start) if status or is_page(start) else None


def of_network(status: int, host: str, what: str, start: bytes) -> HubUnreachableError | None:
    """The error of an answer that is a proxy's or a network's, not the hub's; None for any other."""
    if status == 407:
        return HubUnreachableError(
            "The proxy wants a user and a password for {what} (HTTP 407).",
            what=what,
            hint="Put USER:PASSWORD@ before the host in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY",
        )
    if status == 511 or (is_page(start) and status not in RETRIED_STATUSES):
        return WebPageError(_page_message(host, what, start, status), hint=_PAGE_HINT)
    return None


def no_hub(host: str) -> str:
    """The hint for an answer that cannot be interpreted."""
    return tr(
        "Is {host} a hub, or a mirror of one? HF_ENDPOINT and MODELSCOPE_ENDPOINT name mirrors; "
        "unset them to ask the hub itself",
        host=host,
    )


_PAGE_HINT = tr(
    "Open any page in a browser on this machine and log in, or ask who runs the network; a mirror "
    "may be wrong too (HF_ENDPOINT, MODELSCOPE_ENDPOINT, pip's index-url). Nothing of it was kept"
)
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)


def _page_message(host: str, what: str, start: bytes, status: int = 200) -> str:
    title = _TITLE.search(start)
    said = [f"HTTP {status}"] if status >= 400 else []
    said += [repr(title[1].decode("utf-8", "replace").strip())] if title else []
    named = f" ({', '.join(said)})" if said else ""
    return tr(
        "{host} answered with a web page{named} where {what} was expected: the login "
        "page of this network (a captive portal), or a proxy's or mirror's own page.",
        host=host,
        named=named,
        what=what,
    )


def host_of(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

"""HTTP for the hubs: one attempt at a time, with every outcome given one of yibu's names.

Only reading is done here, so every request may be repeated. What may succeed when repeated is a
``TransientError``; ``retrying`` repeats it with back-off. Everything else is final.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from yibu.errors import (
    HubAuthError,
    HubError,
    HubNotFoundError,
    HubUnreachableError,
    PullCancelledError,
)
from yibu.hub.settings import HubSettings
from yibu.messages import tr

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

logger = logging.getLogger(__name__)

_READ_BYTES = 1024 * 1024
_RETRY_AFTER_LIMIT = 60.0
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")


class TransientError(Exception):
    """The same request may succeed later: a broken connection, 429 or 5xx."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WebPageError(HubUnreachableError):
    """A web page came where a file or a list was asked for."""


class HttpClient:
    """A pool of connections that can be cut from another thread."""

    def __init__(self, settings: HubSettings, *, ca_bundle: str | None = None) -> None:
        import requests

        self._settings = settings
        self._session = requests.Session()
        # Proxies and certificates come from HubSettings: nothing here reads the environment.
        self._session.trust_env = False
        self._session.verify = ca_bundle or settings.ca_bundle or True
        adapter = _adapter(settings)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        # A compressed answer to a range would be a range of something else.
        self._session.headers["Accept-Encoding"] = "identity"
        self._open: set[requests.Response] = set()
        self._lock = threading.Lock()
        self._aborted = False

    @contextmanager
    def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        what: str,
        page: bool = False,
    ) -> Iterator[requests.Response]:
        """One GET, its body not yet read. ``what`` names the object in errors; ``page`` says that
        it may be a web page.

        Raises:
            TransientError: worth another try.
            HubAuthError, HubNotFoundError, WebPageError, HubError: final.
        """
        if self._aborted:
            raise _cancelled(what)
        response = self._answer(url, headers or {}, what)
        with self._lock:
            self._open.add(response)
        try:
            _raise_for_status(response, url, what)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            # A refused range (416) has a page of its own, which is nobody's login.
            if not page and response.status_code < 300 and kind in _PAGES:
                raise web_page(what, url, response, next(body(response, what), b""))
            yield response
        finally:
            with self._lock:
                self._open.discard(response)
            response.close()

    def _answer(self, url: str, headers: Mapping[str, str], what: str) -> requests.Response:
        import requests

        timeout = (self._settings.connect_timeout, self._settings.read_timeout)
        try:
            return self._session.get(url, headers=dict(headers), stream=True, timeout=timeout)
        except requests.exceptions.SSLError as error:
            raise HubUnreachableError(
                tr(
                    "{url} showed a certificate that this machine does not trust: {error}.",
                    url=_host(url),
                    error=shortest(error),
                ),
                hint=tr(
                    "Behind a proxy that opens TLS, set SSL_CERT_FILE to its certificate. A "
                    "clock that is wrong does the same: this machine's says {clock}.",
                    clock=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                ),
            ) from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            # No library tells a dead proxy from the server behind it.
            reason = self._settings.proxies.fault(url) or shortest(error)
            raise TransientError(
                tr("no answer from {url}: {reason}", url=_host(url), reason=reason)
            ) from error
        except requests.exceptions.RequestException as error:
            raise HubError(
                tr(
                    "{what} cannot be asked for at {url}: {error}.",
                    what=what,
                    url=url,
                    error=shortest(error),
                )
            ) from error

    def abort(self) -> None:
        """End every running read at once, from any thread; the client is of no use after it."""
        self._aborted = True
        with self._lock:
            running = list(self._open)
        for response in running:
            try:
                response.raw.shutdown()
            except (OSError, RuntimeError, ValueError, AttributeError) as error:
                # It ended by itself meanwhile, which is all that was wanted.
                logger.debug("a connection was already gone: %s", error)

    def close(self) -> None:
        self._session.close()


def _adapter(settings: HubSettings) -> HTTPAdapter:
    """Chooses the proxy for each request of its own: a redirect may lead to where another one, or
    none, is used."""
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kw: Any) -> Any:
            proxy = settings.proxies.of(request.url or "")
            kw["proxies"] = {} if proxy is None else {"all": proxy.url}
            return super().send(request, *args, **kw)

    return Adapter(pool_maxsize=settings.connections + 2)


def body(response: requests.Response, what: str, *, decode: bool = False) -> Iterator[bytes]:
    """The response's bytes as they come, decompressed with ``decode``; a broken connection is a
    TransientError."""
    import urllib3

    raw = response.raw
    while True:
        try:
            chunk: bytes = raw.read1(_READ_BYTES, decode_content=decode)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # ValueError: the connection was cut by abort() between two reads.
            raise TransientError(
                tr(
                    "the connection broke while {what} came: {error}",
                    what=what,
                    error=shortest(error),
                )
            ) from error
        if not chunk:
            return
        yield chunk


def is_page(start: bytes) -> bool:
    """Whether bytes begin a web page."""
    text = start[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<script"))


def may_be_page(path: str) -> bool:
    """Whether a file of a repository may well be one: documentation, by its name."""
    return path.lower().endswith((".html", ".htm", ".xhtml", ".md", ".txt", ".svg", ".xml"))


def web_page(what: str, url: str, response: requests.Response, start: bytes) -> WebPageError:
    """Says what a page is that came instead of something else, as far as it can be told."""
    host = _host(response.url or url)
    if host != _host(url):
        host = tr("{host} (to which {url} led)", host=host, url=_host(url))
    return WebPageError(_page_message(host, what, start), hint=_PAGE_HINT)


def page_in(error: BaseException | None, host: str, what: str) -> WebPageError | None:
    """The page that a library could not read as JSON, from its exception or those behind it."""
    while error is not None:
        text = getattr(error, "doc", None)  # json.JSONDecodeError's, and requests'
        start = text.encode() if isinstance(text, str) else text
        if isinstance(start, bytes) and is_page(start):
            return WebPageError(_page_message(host, what, start), hint=_PAGE_HINT)
        error = error.__cause__ or error.__context__
    return None


_PAGE_HINT = tr(
    "Open any page in a browser on this machine and log in, or ask who runs the network; "
    "a mirror may be wrong too (HF_ENDPOINT, MODELSCOPE_ENDPOINT, pip's index-url). "
    "Nothing of it was kept."
)
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)


def _page_message(host: str, what: str, start: bytes) -> str:
    title = _TITLE.search(start)
    named = f" ({title[1].decode('utf-8', 'replace').strip()!r})" if title else ""
    return tr(
        "{host} answered with a web page{named} where {what} was expected: the login "
        "page of this network (a captive portal), or a proxy's or mirror's own page.",
        host=host,
        named=named,
        what=what,
    )


def retrying(
    settings: HubSettings, what: str, attempt: Callable[[], T], cancel: threading.Event
) -> T:
    """Call ``attempt`` until it gives something other than a TransientError.

    Raises:
        HubUnreachableError: ``settings.attempts`` tries failed.
        PullCancelledError: ``cancel`` was set while waiting.
    """
    for tried in range(1, settings.attempts + 1):
        try:
            return attempt()
        except TransientError as error:
            if cancel.is_set():
                raise _cancelled(what) from error
            if tried == settings.attempts:
                raise unreachable(what, settings, error) from error
            pause(settings, tried, error, cancel, what)
    raise AssertionError("attempts is at least 1")


def pause(
    settings: HubSettings, tried: int, error: TransientError, cancel: threading.Event, what: str
) -> None:
    """Wait before try ``tried + 1``; a cancel ends the wait."""
    delay = min(settings.max_backoff, settings.backoff * 2 ** (tried - 1))
    delay *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads clients out, guards nothing
    if error.retry_after is not None:
        delay = max(delay, min(error.retry_after, _RETRY_AFTER_LIMIT))
    logger.info("%s: %s; try %d in %.1f s", what, error, tried + 1, delay)
    if cancel.wait(delay):
        raise _cancelled(what)


def _cancelled(what: str) -> PullCancelledError:
    return PullCancelledError(tr("Reading {what} was cancelled.", what=what))


def unreachable(what: str, settings: HubSettings, error: TransientError) -> HubUnreachableError:
    return HubUnreachableError(
        tr(
            "{what} could not be fetched in {attempts} tries; the last: {error}.",
            what=what,
            attempts=settings.attempts,
            error=error,
        ),
        hint=tr("Run the same command again to go on from here; `yibu doctor` checks the network."),
    )


def _raise_for_status(response: requests.Response, url: str, what: str) -> None:
    status = response.status_code
    # 416 says something of the file's size, which only the caller can judge.
    if status < 300 or status == 416:
        return
    host = _host(response.url or url)
    redirected = host != _host(url)
    if status in _RETRIED_STATUSES:
        raise TransientError(
            tr("{host} answered HTTP {status}", host=host, status=status),
            retry_after=_retry_after(response.headers),
        )
    if status in (401, 403):
        if redirected:
            # A storage host refuses a signed link that ran out; the hub signs a new one.
            raise TransientError(
                tr(
                    "{host} refused the link to {what} (HTTP {status})",
                    host=host,
                    what=what,
                    status=status,
                )
            )
        raise HubAuthError(
            tr("{host} refuses {what} (HTTP {status}).", host=host, what=what, status=status),
            hint=tr(
                "Accept the model's terms on its page, and set the hub's token "
                "(MODELSCOPE_API_TOKEN or HF_TOKEN)."
            ),
        )
    if status in (404, 410):
        raise HubNotFoundError(
            tr("{host} has no {what} (HTTP {status}).", host=host, what=what, status=status),
            hint=tr("Check the spelling and the revision."),
        )
    raise HubError(
        tr(
            "{host} answered HTTP {status} for {what}; 200 or 206 was expected.",
            host=host,
            status=status,
            what=what,
        )
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "").strip()
    return float(value) if value.isascii() and value.isdigit() else None


def _host(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def shortest(error: BaseException) -> str:
    """The innermost reason: urllib3 wraps one error in the next, and only the first one says why."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return shortest(reason)
    inner = error.args[0] if error.args else None
    if isinstance(inner, BaseException):
        return shortest(inner)
    if isinstance(error.__cause__, OSError):
        return shortest(error.__cause__)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"

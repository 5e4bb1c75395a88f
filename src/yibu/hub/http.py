"""HTTP for the hubs: one attempt at a time, with every failure as one of yibu's errors.

Only reading is done here, so every request may be repeated. What may succeed when repeated is a
``TransientError``; ``retrying`` repeats it with back-off. Everything else is final.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from yibu.errors import (
    HubAuthError,
    HubError,
    HubNotFoundError,
    HubUnreachableError,
    PullCancelledError,
)
from yibu.hub import tls
from yibu.hub.pages import RETRIED_STATUSES, host_of, no_hub, of_network, web_page
from yibu.hub.settings import HubSettings
from yibu.messages import tr

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

logger = logging.getLogger(__name__)

_READ_BYTES = 1024 * 1024
_RETRY_AFTER_LIMIT = 60.0
_PAGES = frozenset({"text/html", "application/xhtml+xml"})

T = TypeVar("T")


class TransientError(Exception):
    """The same request may succeed later: a broken connection, 429 or 5xx."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, limited: bool = False
    ) -> None:
        """``limited``: the hub asks for fewer requests."""
        super().__init__(message)
        self.retry_after = retry_after
        self.limited = limited


class HttpClient:
    """A pool of connections that can be cut from another thread."""

    def __init__(self, settings: HubSettings, *, ca_bundle: str | None = None) -> None:
        import requests

        self._settings = settings
        self._session = requests.Session()
        # Proxies and certificates come from HubSettings: nothing here reads the environment.
        self._session.trust_env = False
        self._session.verify = tls.trusted(ca_bundle or settings.ca_bundle)
        adapter = _adapter(settings)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        # A compressed answer to a range would be a range of something else.
        self._session.headers["Accept-Encoding"] = "identity"
        self._open: set[requests.Response] = set()
        self._lock = threading.Lock()
        self._aborted = False
        self._answered = False

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
            response = self._session.get(url, headers=dict(headers), stream=True, timeout=timeout)
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            # No library tells a dead proxy from the server behind it. One that has worked may come
            # back; of one that never did, nobody wants to wait for six tries.
            url = _failed(error, url)
            if not self._answered:
                require_proxy(self._settings, url, what)
            if wrong := tls.fault(error, url):
                raise wrong from error
            reason = self._settings.proxies.fault(url) or shortest(error)
            raise TransientError(
                tr("no answer from {url}: {reason}", url=host_of(url), reason=reason)
            ) from error
        except (requests.exceptions.RequestException, ValueError) as error:  # of a Location, too
            raise HubError(
                "{what} cannot be asked for at {url}: {error}.",
                what=what,
                url=url,
                error=shortest(error).rstrip("."),
                hint=no_hub(host_of(url)),
            ) from error
        self._answered = True
        return response

    def abort(self) -> None:
        """End every running read at once, from any thread; the client cannot be used afterwards."""
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
    """An adapter that chooses the proxy for each request: a redirect may need another one, or none."""
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


def require_proxy(settings: HubSettings, url: str, what: str) -> None:
    """Raises HubUnreachableError when the proxy for ``url`` does not answer."""
    if dead := settings.proxies.fault(url):
        raise HubUnreachableError(
            "{what} cannot be fetched: {reason}.",
            what=what,
            reason=dead,
            hint="Correct or unset that variable; NO_PROXY lists hosts to ask directly",
        )


def retrying(
    settings: HubSettings, what: str, attempt: Callable[[], T], cancel: threading.Event
) -> T:
    """Call ``attempt`` until it does not raise TransientError.

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
    return PullCancelledError("Reading {what} was cancelled.", what=what)


def unreachable(what: str, settings: HubSettings, error: TransientError) -> HubUnreachableError:
    return HubUnreachableError(
        "{what} could not be fetched in {attempts} tries; the last: {error}.",
        what=what,
        attempts=settings.attempts,
        error=error,
        hint=asks_less()
        if error.limited
        else tr("Run the same command again to go on from here; `yibu doctor` checks the network"),
    )


def asks_less() -> str:
    """The hint for a hub that limits the rate of requests (429)."""
    return tr(
        "The hub limits requests by address and account: run the same command again in some minutes, "
        "with a token (HF_TOKEN, MODELSCOPE_API_TOKEN) or with YIBU_DOWNLOAD_CONNECTIONS=2"
    )


def _raise_for_status(response: requests.Response, url: str, what: str) -> None:
    status = response.status_code
    # 416 says something of the file's size, which only the caller can judge.
    if status < 300 or status == 416:
        return
    host = host_of(response.url or url)
    redirected = host != host_of(url)
    if status in RETRIED_STATUSES:
        raise TransientError(
            tr("{host} answered HTTP {status}", host=host, status=status),
            retry_after=retry_after(response.headers),
            limited=status == 429,
        )
    if status == 400 and (mixed_up := tls.plain_to_tls(response.url)):
        raise mixed_up
    if ours := of_network(status, host, what, next(body(response, what), b"")):
        raise ours
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
                "(MODELSCOPE_API_TOKEN or HF_TOKEN)"
            ),
        )
    if status in (404, 410):
        raise HubNotFoundError(
            tr("{host} has no {what} (HTTP {status}).", host=host, what=what, status=status),
            hint=tr("Check the spelling and the revision"),
        )
    raise HubError(
        tr(
            "{host} answered HTTP {status} for {what}; 200 or 206 was expected.",
            host=host,
            status=status,
            what=what,
        )
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, given as a number or as a date (RFC 9110, 10.2.3); None where not given."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _failed(error: requests.exceptions.RequestException, url: str) -> str:
    """The address that failed: ``url``, or where a redirect from it led."""
    failed = error.request.url if error.request is not None else None
    return str(failed or url)


def shortest(error: BaseException) -> str:
    """The innermost reason: urllib3 wraps one error in the next, and only the first one says why."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return shortest(reason)
    # urllib3's ProtocolError has a text first, and then the reason.
    if inner := next((one for one in error.args if isinstance(one, BaseException)), None):
        return shortest(inner)
    if isinstance(error.__cause__, OSError):
        return shortest(error.__cause__)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(f"{type(error).__name__}: {error}".split())

"""The console's sessions: a cookie that stands for the key of a signed-in admin."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from yibu.accounts.live import Caller
from yibu.errors import OverloadedError, RequestError, UnauthorizedError
from yibu.gateway.keys import KeyRing
from yibu.gateway.saved import Saved, SavedSession

CSRF_HEADER = b"x-csrf-token"

_COOKIE = "yibu_session"
_IDLE = 12 * 3600.0
_LONGEST = 7 * 86400.0
_MOST = 256
"""Concurrent sessions; the longest unused one is dropped."""
_USED_EVERY = 300.0
"""Seconds between two writes of a session's last use."""
_TRIES = 10
_WINDOW = 60.0
_ADDRESSES = 4096
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Headers = Mapping[bytes, bytes]
Presented = tuple[bytes | None, bytes | None]
"""The values of Authorization and x-api-key."""


class ForbiddenError(RequestError):
    """The caller is not allowed to do this."""

    status = 403
    type = "permission_error"


class SignedOutError(UnauthorizedError):
    """There is no session, or it has ended."""

    default_code = "signed_out"


@dataclass(eq=False, slots=True)
class BrowserSession:
    """One signed-in browser."""

    proof: bytes = field(repr=False)
    """HMAC of the key's digest, with the cookie as key, so that the file reveals neither."""
    begun: float
    used: float
    recorded: float
    """The value of ``used`` on disk."""
    key: bytes | None = field(default=None, repr=False)
    """The key's digest, checked at each request; None for a session of an earlier process until its
    cookie comes."""
    csrf: str = field(default="", repr=False)


class Sessions:
    """All open sessions."""

    def __init__(self, keys: KeyRing, saved: Saved, clock: Callable[[], float] = time.time) -> None:
        """``saved`` keeps them for the next process; ``clock`` returns Unix seconds."""
        self._keys = keys
        self.saved = saved
        self._clock = clock
        self._loaded: OrderedDict[bytes, BrowserSession] | None = None
        self._tries: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Wrong keys by network: since when, and how many."""

    @property
    def _open(self) -> OrderedDict[bytes, BrowserSession]:
        """By the digest of the cookie's value, so that a look tells nothing of it; the one longest unused
        first. Read when the first cookie comes: during an upgrade the earlier process may still write."""
        if self._loaded is None:
            self._loaded = OrderedDict(
                (one.cookie, BrowserSession(one.key, one.begun, one.used, one.used))
                for one in self.saved.sessions()
            )
        return self._loaded

    def sign_in(self, key: str, address: str) -> tuple[str, BrowserSession, Caller]:
        """Open a session; returns the cookie's value, the session, and the key's holder.

        Raises:
            OverloadedError: too many wrong keys came from this network.
            UnauthorizedError: the key is not known.
            ForbiddenError: it is not an admin's.
            NotReadyError: keys cannot be checked now.
        """
        network = _network(address)
        self._refuse_guessing(network)
        try:
            caller = self._keys.check(None, key.encode())
            check_admin(caller)
        except (UnauthorizedError, ForbiddenError):
            since, tries = self._tries.pop(network, (self._clock(), 0))
            self._tries[network] = (since, tries + 1)
            if len(self._tries) > _ADDRESSES:
                self._tries.popitem(last=False)
            raise
        value, now = secrets.token_urlsafe(32), self._clock()
        digest, held = _digest(value), self._keys.digest(key.encode())
        session = BrowserSession(_proof(value, held), now, now, now, held, _csrf(value))
        self._open[digest] = session
        self.saved.add_session(SavedSession(digest, session.proof, now, now))
        if len(self._open) > _MOST:
            self._end(next(iter(self._open)))
        return value, session, caller

    def sign_out(self, headers: Headers) -> None:
        if value := cookie_value(headers):
            self._end(_digest(value))

    def find(self, headers: Headers) -> tuple[BrowserSession, Caller] | None:
        """The session of a request's cookie, and its user; None without one, or where it has ended.

        Raises:
            NotReadyError: keys cannot be checked now.
        """
        value = cookie_value(headers)
        if value is None:
            return None
        digest = _digest(value)
        session = self._open.get(digest)
        if session is None:
            return None
        if session.key is None:
            proofs = ((key, _proof(value, key)) for key in self._keys.digests())
            same = (key for key, proof in proofs if hmac.compare_digest(proof, session.proof))
            session.key, session.csrf = next(same, b""), _csrf(value)
        caller = self._caller(session)
        if caller is None:
            self._end(digest)
            return None
        session.used = self._clock()
        self._open.move_to_end(digest)
        if session.used - session.recorded > _USED_EVERY:
            session.recorded = session.used
            self.saved.use_session(digest, session.used)
        return session, caller

    def _end(self, digest: bytes) -> None:
        if self._open.pop(digest, None) is not None:
            self.saved.end_session(digest)

    def holds(self, session: BrowserSession) -> bool:
        """Whether a session is still valid, for a stream that goes on."""
        return session in self._open.values() and self._caller(session) is not None

    def expires(self, session: BrowserSession) -> float:
        """When it expires if unused, in Unix seconds."""
        return min(session.used + _IDLE, session.begun + _LONGEST)

    def _caller(self, session: BrowserSession) -> Caller | None:
        if self._clock() >= self.expires(session):
            return None
        try:
            caller = self._keys.holder(session.key or b"")
        except UnauthorizedError:
            return None
        return caller if caller is not None and caller.admin else None

    def _refuse_guessing(self, network: str) -> None:
        since, tries = self._tries.get(network, (0.0, 0))
        wait = since + _WINDOW - self._clock()
        if wait <= 0:
            self._tries.pop(network, None)
        elif tries >= _TRIES:
            raise OverloadedError(
                "{tries} wrong keys came from this address within a minute; try again in "
                "{wait:.0f} s",
                tries=tries,
                wait=wait,
                code="too_many_attempts",
                retry_after=wait,
            )


class Authentication:
    """Identifies who sends a request: by a key, or by a session's cookie."""

    def __init__(self, keys: KeyRing, sessions: Sessions) -> None:
        self.keys = keys
        self.sessions = sessions

    def check(self, method: str, headers: Headers, presented: Presented | None = None) -> Caller:
        """Return who calls; ``presented`` are the two keys of a websocket's handshake, which may stand
        elsewhere than in its headers.

        Raises:
            UnauthorizedError: no key and no session, or a key that is not known.
            ForbiddenError: a session's request that another site may have made.
            NotReadyError: keys cannot be checked now.
        """
        websocket = presented is not None
        authorization, x_api_key = presented or (
            headers.get(b"authorization"),
            headers.get(b"x-api-key"),
        )
        if (
            self.keys.closed
            and authorization is None
            and x_api_key is None
            and b"cookie" in headers
            and (found := self.sessions.find(headers)) is not None
        ):
            session, caller = found
            check_same_origin(headers, strictly=websocket)
            token = headers.get(CSRF_HEADER, b"")
            if method not in _SAFE and not hmac.compare_digest(token, session.csrf.encode()):
                raise ForbiddenError(
                    "A request with the console's session needs its token in X-CSRF-Token",
                    hint="GET /console/api/session has it",
                    code="csrf_token",
                )
            return caller
        return self.keys.check(authorization, x_api_key)


def check_admin(caller: Caller) -> None:
    """Raises ForbiddenError where the caller may not use the console."""
    if not caller.admin:
        raise ForbiddenError(
            "The console needs an admin's API key",
            hint="yibu key add NAME --admin makes one",
            code="admin_key_needed",
        )


def check_same_origin(headers: Headers, *, strictly: bool = False) -> None:
    """Accept requests of the gateway's own pages, and of programs, which send no Origin.

    ``strictly``: an origin has to be named, as browsers do when they open a websocket.

    Raises:
        ForbiddenError: it comes from a page of another origin.
    """
    if not from_another_site(headers, strictly=strictly):
        return
    shown = (headers.get(b"origin") or b"another origin").decode("latin-1")[:200]
    raise ForbiddenError(
        "The request comes from a web page of {shown}; the console is for its own page alone",
        shown=shown,
        hint="A proxy in front has to hand on the Host header as the browser sent it",
        code="origin_not_allowed",
    )


def cookie_name(headers: Headers) -> str:
    """The cookie's name, with the port: browsers send one host's cookies to all of its ports."""
    port = headers.get(b"host", b"").rpartition(b":")[2]
    return f"{_COOKIE}_{port.decode()}" if port.isdigit() else _COOKIE


def cookie_value(headers: Headers) -> str | None:
    """The value of the request's cookie; None without one."""
    cookies = SimpleCookie()
    try:
        cookies.load(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return None
    morsel = cookies.get(cookie_name(headers))
    return morsel.value if morsel else None


def set_cookie(headers: Headers, value: str | None) -> str:
    """A Set-Cookie header that sets a session's cookie, or removes it."""
    behind_tls = headers.get(b"origin", b"").startswith(b"https://")
    parts = [f"{cookie_name(headers)}={value or ''}", "Path=/", "HttpOnly", "SameSite=Strict"]
    if behind_tls:
        parts.append("Secure")
    if value is None:
        parts.append("Max-Age=0")
    return "; ".join(parts)


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _proof(value: str, key: bytes) -> bytes:
    return hmac.digest(value.encode(), key, "sha256")


def _csrf(value: str) -> str:
    """The token that goes with a cookie: whoever has the cookie's value could compute it, and no page can
    read that."""
    return hmac.digest(value.encode(), b"csrf", "sha256").hex()


def _network(address: str) -> str:
    """An IPv4 address, or the /64 that an IPv6 address belongs to: one client has all of it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket has none
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return address


def from_another_site(headers: Mapping[bytes, bytes], *, strictly: bool = False) -> bool:
    """Whether a page of another site sent a request; ``strictly``, also where nothing says who did."""
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        return site not in (b"same-origin", b"none")
    if origin is None:
        return strictly
    return origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower()

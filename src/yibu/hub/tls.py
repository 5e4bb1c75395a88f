"""Explains TLS errors: certificates, and http/https mixed up."""

from __future__ import annotations

import socket
import ssl
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from yibu.errors import ConfigError, HubUnreachableError
from yibu.hub.pages import host_of
from yibu.messages import tr

_EXPIRED, _NOT_YET = 10, 9
_OTHER_NAME = (62, 64)
"""X509_V_ERR_… of OpenSSL's x509_vfy.h."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
"""OpenSSL's reasons where text came instead of TLS."""
_BROKEN = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_TRY = 5.0
"""Seconds for finding out whether a port speaks TLS."""


def fault(error: BaseException, url: str, status: int | None = None) -> HubUnreachableError | None:
    """The error of ``url`` where a library's error comes of TLS, or of its absence; None for others,
    those of a broken line among them. ``status``: of the answer, if there was one."""
    behind = list(_behind(error))
    for each in behind:
        if isinstance(each, ssl.SSLError) and not isinstance(each, _BROKEN):
            return _named(each, url)
    if any(isinstance(each, TimeoutError) for each in behind) or status not in (None, 400):
        return None
    return plain_to_tls(url)


def plain_to_tls(url: str) -> HubUnreachableError | None:
    """The error where ``url`` says ``http:`` of a port that speaks TLS: it is asked."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return None
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    try:
        place = (parts.hostname, parts.port or 80)
        with socket.create_connection(place, _TRY) as plain, context.wrap_socket(plain):
            host = host_of(url)
            return _mixed_up(
                host, tr("{host} speaks TLS, but http:// was asked.", host=host), "https"
            )
    except OSError:
        return None


def trusted(bundle: str | None) -> str | bool:
    """What requests takes as ``verify``: a file or directory of certificates, or its own.

    Raises:
        ConfigError: there are no certificates.
    """
    if bundle is None:
        return True
    context(bundle)
    return bundle


def context(bundle: str) -> ssl.SSLContext:
    """Trusts the certificates of a file, or of a directory made by ``openssl rehash``.

    Raises:
        ConfigError: there are none.
    """
    place = {"capath" if Path(bundle).is_dir() else "cafile": bundle}
    try:
        if "capath" in place and not any(Path(bundle).glob("*.0")):
            raise ssl.SSLError(tr("no certificates in it"))
        return ssl.create_default_context(**place)  # type: ignore[arg-type]  # one of its keywords
    except OSError as error:
        reason = tr("no certificates in it") if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            "The certificates to trust cannot be read from {bundle}: {reason}.",
            bundle=bundle,
            reason=reason or error,
            hint="Correct or unset the variable that names it: SSL_CERT_FILE, REQUESTS_CA_BUNDLE, "
            "CURL_CA_BUNDLE, or pip's cert",
        ) from error


def _named(error: ssl.SSLError, url: str) -> HubUnreachableError:
    host, reason = host_of(url), error.reason or str(error)
    if not isinstance(error, ssl.SSLCertVerificationError):
        if reason in _NO_TLS:
            return _mixed_up(host, tr("{host} does not speak TLS.", host=host), "http")
        return HubUnreachableError(
            "{host} and this machine agree on no TLS: {reason}.",
            host=host,
            reason=reason,
            hint="See what it speaks: openssl s_client -connect {host}",
        )
    reason = error.verify_message.rstrip(".")
    return HubUnreachableError(
        "{url} showed a certificate that this machine does not trust: {error}.",
        url=host,
        error=reason,
        hint=_advice(error.verify_code, host),
    )


def _advice(code: int, host: str) -> str:
    if code in (_EXPIRED, _NOT_YET):
        clock = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return tr(
            "This machine's clock says {clock}: if that is wrong, set it (timedatectl set-ntp true); if "
            "not, who runs {host} has to renew the certificate",
            clock=clock,
            host=host,
        )
    if code in _OTHER_NAME:
        return tr(
            "Write the host as its certificate names it, in HF_ENDPOINT, MODELSCOPE_ENDPOINT or pip's "
            "index-url: openssl s_client -connect {host} </dev/null | openssl x509 -noout -ext "
            "subjectAltName",
            host=host if ":" in host else f"{host}:443",
        )
    return tr(
        "Trust who signed it: export SSL_CERT_FILE=FILE, the certificate of your company's or proxy's "
        "authority, or all that this system trusts: /etc/ssl/certs/ca-certificates.crt"
    )


def _mixed_up(host: str, message: str, scheme: str) -> HubUnreachableError:
    return HubUnreachableError(
        message,
        hint=tr(
            "Write {scheme}://{host}, in HF_ENDPOINT, MODELSCOPE_ENDPOINT, pip's index-url or the proxy's "
            "variable",
            scheme=scheme,
            host=host,
        ),
    )


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error and all of its causes, which libraries wrap in different ways."""
    left, seen = [error], set[int]()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = (*each.args, getattr(each, "reason", None), each.__cause__, each.__context__)
        left += [one for one in inner if isinstance(one, BaseException)]

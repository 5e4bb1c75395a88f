"""Errors as plain data for a socket, and back."""

from __future__ import annotations

from typing import Any

from yibu import errors
from yibu.errors import EngineStartError, RequestError, YibuError


def plain_error(error: YibuError) -> dict[str, Any]:
    """An error as plain data; :func:`rebuild_error` makes it an exception again.

    A class that only one package knows goes as its nearest parent in ``yibu.errors``.
    """
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == "yibu.errors")
    plain: dict[str, Any] = {
        "type": kind.__name__,
        "message": error.message,
        "hint": error.hint,
    }
    if isinstance(error, EngineStartError):
        plain["cause"] = error.cause
    if isinstance(error, RequestError):
        plain |= {"param": error.param, "code": error.code, "retry_after": error.retry_after}
    return plain


def rebuild_error(plain: dict[str, Any]) -> YibuError:
    """The exception that the node raised; a YibuError when its class is not known here."""
    kind = getattr(errors, str(plain.pop("type")), YibuError)
    message = plain.pop("message")
    if not (isinstance(kind, type) and issubclass(kind, YibuError)):
        kind = YibuError
    if not issubclass(kind, RequestError | EngineStartError):
        plain = {"hint": plain.get("hint", "")}
    return kind(message, **plain)

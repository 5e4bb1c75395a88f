"""Error responses: OpenAI's object on every path, Anthropic's on Anthropic's."""

from __future__ import annotations

import math
from typing import Any, Literal

import orjson

from yibu.errors import (
    EngineGoneError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnauthorizedError,
    UnknownModelError,
)
from yibu.messages import ENGLISH, render, tr
from yibu.upstream.connection import UpstreamError

Headers = list[tuple[bytes, bytes]]

Dialect = Literal["openai", "responses", "anthropic", "script"]
"""Whose clients ask: their SDKs know an error by other fields, in a stream above all. The
``script`` is the one whose ``/recognize/`` is served here; it says ``{"error": "a sentence"}``."""

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status, as https://docs.anthropic.com/en/api/errors has them; of the others, those below 500 are
``invalid_request_error`` and the rest ``api_error``."""

_PASSING = frozenset({408, 425, 429})
"""Statuses of temporary refusals."""
_FINAL = frozenset({501, 505})


class EngineTimeoutError(EngineGoneError):
    """The engine was silent for longer than gateway.request_timeout."""

    status = 504
    default_code = "engine_timeout"


class NoSuchPathError(UnknownModelError):
    """No such path, or the model's engine does not serve it."""

    default_code = "unknown_path"


class NotCapableError(UnknownModelError):
    """The model's engine serves another kind of request."""

    default_code = "model_not_capable"


class MethodNotAllowedError(InvalidRequestError):
    """The path exists, but not with this method."""

    status = 405
    default_code = "method_not_allowed"


class UpgradeRequiredError(InvalidRequestError):
    """The path is a websocket's."""

    status = 426
    default_code = "upgrade_required"


class EngineAnswerError(RequestError):
    """The engine answered with an error; its status is kept."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        should_retry: bool = True,
    ) -> None:
        if code is None:
            code = "invalid_value" if status < 500 else "engine_error"
            code = OverloadedError.default_code if status == OverloadedError.status else code
        super().__init__(message, param=param, code=code, retry_after=retry_after)
        self.status = status
        self.type = kind
        self.should_retry = should_retry


def error_body(
    error: RequestError,
    dialect: Dialect = "openai",
    request_id: bytes | None = None,
    language: str = ENGLISH,
) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}``, its message in the reader's language.

    For Anthropic's clients ``type`` is one of theirs, and ``"type": "error"`` and ``request_id``
    stand beside: their SDK finds its fields, and whoever looks for OpenAI's finds those.
    """
    fields = _fields(error, language)
    if dialect == "script":
        return orjson.dumps({"error": fields["message"]})
    if dialect != "anthropic":
        return orjson.dumps({"error": fields})
    fields["type"] = _anthropic_type(error)
    answer: dict[str, Any] = {"type": "error", "error": fields}
    if request_id is not None:
        answer["request_id"] = request_id.decode()
    return orjson.dumps(answer)


def _fields(error: RequestError, language: str) -> dict[str, str | None]:
    message, hint = render(error.message, language), render(error.hint, language)
    if hint:
        end = ". " if language == ENGLISH else "。"
        message = f"{message.rstrip('.。')}{end}{hint}"
    return {
        "message": message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }


def _anthropic_type(error: RequestError) -> str:
    usual = "invalid_request_error" if error.status < 500 else "api_error"
    return _ANTHROPIC_TYPES.get(error.status, usual)


def error_event(
    error: RequestError, dialect: Dialect = "openai", number: int = 0, language: str = ENGLISH
) -> bytes:
    """The same inside a stream of server-sent events; ``number`` is the event's, which the Responses
    API counts."""
    if dialect == "openai":
        return b"data: " + error_body(error, language=language) + b"\n\n"
    if dialect == "anthropic":
        return b"event: error\ndata: " + error_body(error, dialect, None, language) + b"\n\n"
    fields = _fields(error, language)
    # The published event has the fields flat; OpenAI's own client raises where it finds "error".
    event = {**fields, "type": "error", "sequence_number": number, "error": fields}
    return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


def error_headers(error: RequestError) -> Headers:
    headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    final = error.status in _FINAL or (400 <= error.status < 500 and error.status not in _PASSING)
    if final or not error.should_retry:
        # OpenAI's and Anthropic's clients repeat a request on 409 and every 5xx unless told not to.
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b"Bearer"))
    elif isinstance(error, MethodNotAllowedError):
        headers.append((b"allow", b"POST"))
    elif isinstance(error, UpgradeRequiredError):
        headers += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
        headers.append((b"sec-websocket-version", b"13"))
    return headers


def engine_gone(error: UpstreamError, model: str) -> EngineGoneError:
    """The connection to a replica of the model broke off."""
    told = tr("Model {model!r}: {message}", model=model, message=error.message)
    if error.kind == "timeout":
        return EngineTimeoutError(told, hint="gateway.request_timeout in yibu.yaml sets the limit")
    return EngineGoneError(told, hint=tr("See why: yibu logs {model}", model=model))


def shutting_down() -> NotReadyError:
    return NotReadyError("The gateway is shutting down", code="shutting_down", retry_after=5)

"""Error answers: OpenAI's object on every path, Anthropic's words on Anthropic's; made from our errors,
or translated from an engine's."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import orjson

from yibu.errors import (
    EngineGoneError,
    InvalidRequestError,
    RequestError,
    UnauthorizedError,
    UnknownModelError,
)
from yibu.gateway.backend import Route

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

_FIELD = re.compile(r"^Field '([^']+)'")
"""How llama.cpp names the field at fault."""

_KNOWN_TYPES = frozenset(
    {
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "rate_limit_error",
        "server_error",
    }
)


_NO_PATH = frozenset({"Not Found", "Method Not Allowed", "File Not Found"})


class EngineTimeoutError(EngineGoneError):
    """The engine was silent for longer than gateway.request_timeout."""

    status = 504
    default_code = "engine_timeout"


class NoSuchPathError(UnknownModelError):
    """No such path, or the model's engine does not serve it."""

    default_code = "unknown_path"


class NotCapableError(UnknownModelError):
    """The model exists, and its engine does something else."""

    default_code = "model_not_capable"


class MethodNotAllowedError(InvalidRequestError):
    """The path exists, but not with this method."""

    status = 405
    default_code = "method_not_allowed"


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
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after=retry_after)
        self.status = status
        self.type = kind


def error_body(
    error: RequestError, dialect: Dialect = "openai", request_id: bytes | None = None
) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}``.

    For Anthropic's clients ``type`` is one of theirs, and ``"type": "error"`` and ``request_id``
    stand beside: their SDK finds its fields, and whoever looks for OpenAI's finds those.
    """
    fields = _fields(error)
    if dialect == "script":
        return orjson.dumps({"error": fields["message"]})
    if dialect != "anthropic":
        return orjson.dumps({"error": fields})
    fields["type"] = _anthropic_type(error)
    answer: dict[str, Any] = {"type": "error", "error": fields}
    if request_id is not None:
        answer["request_id"] = request_id.decode()
    return orjson.dumps(answer)


def _fields(error: RequestError) -> dict[str, str | None]:
    message = f"{error.message.rstrip('.')}. {error.hint}" if error.hint else error.message
    return {
        "message": message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }


def _anthropic_type(error: RequestError) -> str:
    usual = "invalid_request_error" if error.status < 500 else "api_error"
    return _ANTHROPIC_TYPES.get(error.status, usual)


def error_event(error: RequestError, dialect: Dialect = "openai", number: int = 0) -> bytes:
    """The same inside a stream of server-sent events; ``number`` is the event's, which the Responses
    API counts."""
    if dialect == "openai":
        return b"data: " + error_body(error) + b"\n\n"
    if dialect == "anthropic":
        return b"event: error\ndata: " + error_body(error, dialect) + b"\n\n"
    fields = _fields(error)
    # The published event has the fields flat; OpenAI's own client raises where it finds "error".
    event = {**fields, "type": "error", "sequence_number": number, "error": fields}
    return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


def error_headers(error: RequestError) -> Headers:
    headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b"Bearer"))
    elif isinstance(error, MethodNotAllowedError):
        headers.append((b"allow", b"POST"))
    return headers


def translate(
    status: int, body: bytes, *, model: str, retry_after: float | None = None
) -> RequestError:
    """An engine's error answer as ours; understands OpenAI's shape, llama.cpp's and FastAPI's.
    ``retry_after`` are the seconds that its Retry-After header names.

    An engine that refuses the inner key is the gateway's fault, not the client's: 502.
    """
    if status in {401, 403}:
        return EngineGoneError(
            f"The engine of model {model!r} refused the gateway's inner key",
            hint="Restart the model: yibu restart " + model,
        )
    fields = _error_fields(body)
    message = str(fields.get("message") or _plain(body) or f"the engine answered {status}")
    kind = fields.get("type")
    code = fields.get("code")
    param = fields.get("param")
    if not isinstance(param, str):
        named = _FIELD.match(message)
        param = named[1] if named else None
    if kind == "exceed_context_size_error":
        kind, code = "invalid_request_error", "context_length_exceeded"
        param = param or "messages"
    if not isinstance(code, str):
        code = str(kind) if kind and kind not in _KNOWN_TYPES else None
    if not isinstance(kind, str) or kind not in _KNOWN_TYPES:
        kind = "invalid_request_error" if status < 500 else "server_error"
    return EngineAnswerError(status, message, kind, param=param, code=code, retry_after=retry_after)


def unserved(status: int, body: bytes, path: str, route: Route) -> NoSuchPathError | None:
    """An engine's way of saying that it has no such path, with the engine named; else None."""
    fields = _error_fields(body)
    # FastAPI's words, and llama.cpp's.
    if status not in {404, 405, 501} or fields.get("message") not in _NO_PATH:
        return None
    return NoSuchPathError(
        f"The engine of model {route.model!r}, {route.engine}, does not serve {path}", param="model"
    )


def _error_fields(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(data, dict):
        return {}
    error = data.get("error", data)
    if isinstance(error, str):
        return {"message": error}
    if not isinstance(error, dict):
        return {}
    if "message" not in error and "detail" in error:
        return {**error, "message": _detail(error["detail"])}
    return error


def _detail(detail: object) -> str:
    """FastAPI's ``detail``: a sentence, or a list of objects with ``loc`` and ``msg``."""
    if isinstance(detail, list):
        sentences = [
            f"{'.'.join(map(str, item.get('loc', ())))}: {item.get('msg', '')}"
            for item in detail
            if isinstance(item, dict)
        ]
        return "; ".join(sentences)
    return str(detail)


def _plain(body: bytes) -> str:
    """The first 300 characters of an answer that is not JSON; nothing of a web page."""
    text = body[:300].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else text

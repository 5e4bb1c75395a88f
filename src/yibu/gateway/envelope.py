"""OpenAI's error object, on every path: made from our errors, or translated from an engine's."""

from __future__ import annotations

import math
import re
from typing import Any

import orjson

from yibu.errors import (
    EngineGoneError,
    InvalidRequestError,
    RequestError,
    UnauthorizedError,
    UnknownModelError,
)

Headers = list[tuple[bytes, bytes]]

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


class EngineTimeoutError(EngineGoneError):
    """The engine was silent for longer than gateway.request_timeout."""

    status = 504
    default_code = "engine_timeout"


class NoSuchPathError(UnknownModelError):
    """No such path, or the model's engine does not serve it."""

    default_code = "unknown_path"


class MethodNotAllowedError(InvalidRequestError):
    """The path exists, but not with this method."""

    status = 405
    default_code = "method_not_allowed"


class EngineAnswerError(RequestError):
    """The engine answered with an error; its status is kept."""

    def __init__(self, status: int, message: str, kind: str, **fields: str | None) -> None:
        super().__init__(message, param=fields.get("param"), code=fields.get("code"))
        self.status = status
        self.type = kind


def error_body(error: RequestError) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}``."""
    message = f"{error.message.rstrip('.')}. {error.hint}" if error.hint else error.message
    return orjson.dumps(
        {
            "error": {
                "message": message,
                "type": error.type,
                "param": error.param,
                "code": error.code,
            }
        }
    )


def error_event(error: RequestError) -> bytes:
    """The same inside a stream of server-sent events."""
    return b"data: " + error_body(error) + b"\n\n"


def error_headers(error: RequestError) -> Headers:
    headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def translate(status: int, body: bytes, *, model: str) -> RequestError:
    """An engine's error answer as ours; understands OpenAI's shape, llama.cpp's and FastAPI's.

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
    return EngineAnswerError(status, message, kind, param=param, code=code)


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

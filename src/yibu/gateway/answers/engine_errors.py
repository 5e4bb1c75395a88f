"""Engines' errors as ours; understands OpenAI's shape, llama.cpp's and FastAPI's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from yibu.engines.answers import Answers, Fields, Kind, objects
from yibu.errors import EngineGoneError, OverloadedError, RequestError
from yibu.gateway.envelope import EngineAnswerError, NoSuchPathError
from yibu.messages import tr
from yibu.routing import Route

Translator = Callable[[int, bytes], RequestError]
"""Translates an engine's status and body to the client's error."""

BROKEN_OFF = tr("the engine ended its answer before it was whole")

_LONGEST = 4000
"""Characters of an engine's message: it may hold a long traceback, or the prompt."""

_STATUSES = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "validation": 400,  # TGI's, as is the next
    "overloaded": 429,
}
"""Statuses by error types and codes, where the engine's own status does not tell."""

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


def translate(
    status: int,
    body: bytes,
    *,
    rules: Answers,
    kind: Kind,
    model: str,
    inner: str,
    retry_after: float | None = None,
) -> RequestError:
    """An engine's error answer as ours. ``inner`` is the name that the engine knows the model by;
    ``retry_after`` are the seconds that its Retry-After names.

    An engine that refuses the inner key is the gateway's fault, not the client's: 502.
    """
    fields = error_fields(body)
    message = str(
        fields.get("message") or _plain(body) or tr("the engine answered {status}", status=status)
    )
    type_, code, param = fields.get("type"), fields.get("code"), fields.get("param")
    if status == 424:  # TGI's for a generation that failed: no fault of the request
        status = 502
    if status in {500, 502}:  # what an engine calls a success, or has no better word for
        status = _told_status(type_, code) or status
    if status in {401, 403, 407}:
        return EngineGoneError(
            "The engine of model {model!r} refused the gateway's inner key",
            model=model,
            hint="Restart the model: yibu restart {model}",
        )
    param = param if isinstance(param, str) else None
    fault = rules.request_fault(kind, status, fields)
    if fault is not None:
        status, code, param, type_ = fault.status, fault.code, fault.param, "invalid_request_error"
    if not isinstance(code, str):
        code = str(type_) if type_ and type_ not in _KNOWN_TYPES else None
    if not isinstance(type_, str) or type_ not in _KNOWN_TYPES:
        limited = OverloadedError.type if status == 429 else "invalid_request_error"
        type_ = limited if status < 500 else "server_error"
    message = public_text(message[:_LONGEST], inner=inner, public=model)
    return EngineAnswerError(
        status, message, type_, param=param, code=code, retry_after=retry_after
    )


def _told_status(type_: object, code: object) -> int | None:
    """The status that an error's own fields name."""
    number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) == 3 else code
    if isinstance(number, int) and 400 <= number < 600:
        return number
    words = (word for word in (code, type_) if isinstance(word, str) and word in _STATUSES)
    return next(map(_STATUSES.__getitem__, words), None)


def public_text(text: str, *, inner: str, public: str) -> str:
    """The engine's text with the public name of the model."""
    if inner == public or inner not in text:
        return text
    return re.sub(rf"(?<!\w){re.escape(inner)}(?!\w)", lambda _: public, text)


def unserved(
    status: int, body: bytes, path: str, route: Route, rules: Answers
) -> NoSuchPathError | None:
    """The error for an engine that has no such path, with the engine named; None for any other."""
    if not rules.lacks_path(status, error_fields(body)):
        return None
    return NoSuchPathError(
        "The engine of model {model!r}, {engine}, does not serve {path}",
        model=route.model,
        engine=route.engine,
        path=path,
        param="model",
    )


def no_tool_call(model: str) -> EngineAnswerError:
    return EngineAnswerError(
        502,
        tr(
            "'tool_choice' demands a tool call and model {model!r} made none: its engine does not "
            "enforce the choice, or its chat template knows no tools. Use tool_choice 'auto'",
            model=model,
        ),
        "server_error",
        param="tool_choice",
        code="tool_choice_not_enforced",
        should_retry=False,
    )


def says_failure(answer: Fields) -> bool:
    """Whether an object that is no answer describes an error, in any of the known shapes."""
    return any(answer.get(name) for name in ("error", "detail", "message"))


def error_fields(body: bytes) -> dict[str, Any]:
    """What an engine's error says, wherever in its body that stands."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(data, dict):
        return {}
    error = data.get("error") or data
    if isinstance(error, str):
        return {"message": error, "type": data.get("error_type")}
    if not isinstance(error, dict):
        return {}
    if "message" not in error and "detail" in error:
        place = next(iter(objects(error["detail"])), {}).get("loc")
        named = [str(step) for step in place if step != "body"] if isinstance(place, list) else []
        return {**error, "message": _detail(error["detail"]), "param": ".".join(named) or None}
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
    """The first 300 characters of an answer that is not JSON; empty for a web page."""
    text = body[:300].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else text

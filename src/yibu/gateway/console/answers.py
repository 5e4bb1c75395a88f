"""What the console's routes share: bodies, answers, and the node's errors as HTTP's."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from yibu.errors import InvalidRequestError, NotRunningError, RequestError, YibuError
from yibu.gateway.access import EXCHANGE
from yibu.gateway.envelope import NoSuchPathError
from yibu.messages import localized, tr
from yibu.messages.validation import complaint

NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

M = TypeVar("M", bound=BaseModel)


class NotFoundError(NoSuchPathError):
    """There is no such model, key, log or job."""

    default_code = "not_found"


class ConflictError(RequestError):
    """The state that the request assumes has changed."""

    status = 409
    type = "invalid_request_error"


class OperationRefusedError(RequestError):
    """yibu refuses or fails to do it; ``code`` is the error's cause."""

    status = 422
    type = "invalid_request_error"


class _Localized(Response):
    """JSON with its texts in the client's language."""

    def __init__(self, content: Any, status: int) -> None:
        super().__init__(None, status, NO_STORE, media_type="application/json")
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = orjson.dumps(localized(self._content, scope[EXCHANGE].language))
        self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def answer(content: Any, status: int = 200) -> Response:
    return _Localized(content, status)


def as_request_error(error: YibuError) -> RequestError:
    """The node's error as an error response."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, NotRunningError):
        return NotFoundError(error.message, hint=error.hint)
    return OperationRefusedError(error.message, hint=error.hint, code=error.cause)


async def body_of(request: Request, schema: type[M]) -> M:
    """The request's JSON body, checked.

    Raises:
        InvalidRequestError: it is not JSON, or not of this form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = await request.body()
    if data and kind != "application/json":
        raise InvalidRequestError(
            "The Content-Type is {kind}; expected application/json",
            kind=kind or tr("missing"),
            code="unsupported_media_type",
        )
    try:
        return schema.model_validate(orjson.loads(data or b"{}"), strict=False)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            "The body is not JSON: {error}", error=error, code="invalid_json"
        ) from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        text = tr("{place}: {what}", place=place or tr("the body"), what=complaint([fault]))
        raise InvalidRequestError(text, param=place or None) from None

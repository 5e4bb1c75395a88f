"""The tree of typed errors.

    YibuError
    ├── UsageError                 the command line or a value in it is wrong
    │   ├── ConfigError            yibu.yaml or the environment is wrong
    │   └── SourceError            a source string cannot be read
    ├── DoesNotFitError            the plan needs more than the machine has
    ├── VerificationError          bytes on disk are not the expected ones
    ├── NotRunningError            no node runs in this home
    │   └── NotUpError             a node runs, and the model that was named is not up
    ├── AlreadyRunningError        another node holds this home
    ├── HubError                   a hub or the store failed
    │   ├── HubNotFoundError       the hub knows no such model, revision or file
    │   ├── HubAuthError           the hub wants a token or refuses this one
    │   ├── HubUnreachableError    no answer, or the connection broke and retries are spent
    │   ├── OfflineError           --offline, and something is missing here
    │   ├── DiskFullError          not enough room, seen before or during a download
    │   └── PullCancelledError     a pull was told to stop; what has come stays for the next one
    ├── EnvironmentSetupError      an engine's environment cannot be made
    ├── EngineError                an engine cannot serve the model
    │   ├── UnsupportedError       this engine does not serve this model
    │   └── EngineStartError       the engine did not become ready (carries the cause)
    └── RequestError               an HTTP client's request is refused (OpenAI's error object)
        ├── InvalidRequestError    400
        ├── UnauthorizedError      401
        ├── UnknownModelError      404
        ├── TooLargeError          413
        ├── OverloadedError        429, with Retry-After
        ├── EngineGoneError        502
        └── NotReadyError          503, with Retry-After

Two tables map them: ``yibu.cli.exits`` to exit codes, and each ``RequestError``'s
``status`` to HTTP. Third-party errors are translated once, at the edge that meets them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from yibu.messages import Message, pack, tr, unpack
from yibu.redaction import redact


def safe(text: str) -> str:
    """The text without credentials, and still a message if it was one."""
    clean = redact(text)
    if clean == text:
        return text
    masked = text.mapped(redact) if isinstance(text, Message) else clean
    return masked if redact(masked) == masked else clean


def _text(template: str, values: Mapping[str, object]) -> str:
    return template if isinstance(template, Message) else tr(template, **values)


class YibuError(Exception):
    """Anything yibu refuses or fails at, said so that a person can act on it.

    ``message`` names the object, what was found and what was expected; ``hint`` is the next
    command or change to try, and may be empty. Both are templates for ``values``, as of
    :func:`yibu.messages.tr`, or texts that were made by it. ``cause`` is one of a small number of
    keys, fit for a metric's label.

    Both texts are free of credentials whenever they are read: an error's text may quote another
    program's, and goes to terminals, answers, logs and files alike.
    """

    cause = "unknown"

    def __init__(
        self, message: str, *, hint: str = "", cause: str | None = None, **values: object
    ) -> None:
        self._message = _text(message, values)
        self._hint = _text(hint, values)
        super().__init__(redact(self._message))
        self.cause = cause or type(self).cause

    @property
    def message(self) -> str:
        return safe(self._message)

    @property
    def hint(self) -> str:
        return safe(self._hint)

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


TOLD = "yibu.error "
"""Begins what an engine of yibu's own writes to its log for the node, by :func:`told`."""


def told(error: YibuError) -> str:
    """The error with its texts' values, for a reader of another language."""
    said = {"cause": error.cause, "message": error.message, "hint": error.hint}
    return TOLD + json.dumps(pack(said), ensure_ascii=False)


def heard(line: str) -> YibuError | None:
    """The error that a line of a log tells, as :func:`told` made it."""
    try:
        said = unpack(json.loads(line.partition(TOLD)[2]))
        return YibuError(said["message"], hint=said["hint"], cause=said["cause"])
    except (ValueError, KeyError, TypeError):
        return None


class UsageError(YibuError):
    """The command line, or a value given in it, is wrong."""

    cause = "bad_config"


class ConfigError(UsageError):
    """yibu.yaml or an environment variable holds something that cannot be used."""


class SourceError(UsageError):
    """A source string such as ``modelscope:ORG/NAME@REV`` cannot be read."""


class DoesNotFitError(YibuError):
    """The plan needs more memory than the machine has."""

    cause = "does_not_fit"


class VerificationError(YibuError):
    """A file's size or sha256 is not what the hub or the store's record says."""

    cause = "verification"


class NotRunningError(YibuError):
    """No node runs on this home."""


class HungNodeError(YibuError):
    """A node runs on this home, and does not answer."""


class NotUpError(NotRunningError):
    """A node runs, and the model that was named is not up."""


class AlreadyRunningError(YibuError):
    """Another node process holds this home."""


class HubError(YibuError):
    """A hub, or the local store, failed."""

    cause = "hub"


class HubNotFoundError(HubError):
    """The hub knows no such model, revision or file."""

    cause = "not_found"


class HubAuthError(HubError):
    """The hub wants a token, or refuses the one it was given."""

    cause = "gated_model"


class HubUnreachableError(HubError):
    """The hub did not answer, or the connection broke until the retries were spent."""

    cause = "no_network"


class OfflineError(HubError):
    """Only local files were allowed, and something is missing."""

    cause = "offline"


class DiskFullError(HubError):
    """There is not enough room for a download, found before or while it runs."""

    cause = "disk_full"


class PullCancelledError(HubError):
    """The caller cancelled a pull; the bytes that have come stay and are used by the next one."""


class EnvironmentSetupError(YibuError):
    """uv could not make an engine's environment."""

    cause = "environment"


class EngineError(YibuError):
    """An engine cannot serve a model."""


class UnsupportedError(EngineError):
    """The engine does not serve this kind of model, or not on this machine."""

    cause = "unsupported"


class EngineStartError(EngineError):
    """The engine exited or timed out before it was ready.

    ``cause`` is a key of the engine's library of causes, or ``"unknown"``.
    """


class RequestError(YibuError):
    """An HTTP request is refused; the fields are those of OpenAI's error object.

    ``status`` is the HTTP status, ``type`` and ``code`` OpenAI's words for it, ``param`` the
    request's field at fault (or None), ``retry_after`` seconds for the Retry-After header
    (or None).
    """

    status = 500
    type = "server_error"
    default_code: str | None = None
    should_retry = True
    """False where the same request can never do better, although its status says that it may."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        **values: object,
    ) -> None:
        super().__init__(message, hint=hint, cause=None, **values)
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after = retry_after


class InvalidRequestError(RequestError):
    """A field is missing, of the wrong type, out of range, or the JSON cannot be read."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class UnauthorizedError(RequestError):
    """The API key is missing or wrong."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class UnknownModelError(RequestError):
    """No model of that name is served here, or no such path."""

    status = 404
    type = "invalid_request_error"
    default_code = "model_not_found"


class TooLargeError(RequestError):
    """The request's body is over the limit."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class OverloadedError(RequestError):
    """A queue or a limit is full; the client may try again."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class EngineGoneError(RequestError):
    """The engine died or broke the connection before it answered."""

    status = 502
    default_code = "engine_gone"


class NotReadyError(RequestError):
    """The model is known, but no replica of it is ready."""

    status = 503
    default_code = "model_not_ready"

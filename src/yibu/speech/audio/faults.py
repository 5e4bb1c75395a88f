"""Errors about unusable audio."""

from __future__ import annotations

from yibu.errors import InvalidRequestError


def bad_audio(message: str, *, code: str = "invalid_audio") -> InvalidRequestError:
    """A 400 about the uploaded file."""
    return InvalidRequestError(message, param="file", code=code)

"""The hubs' tokens as people really keep them: with a newline, quotes or a byte order mark."""

from __future__ import annotations

from pathlib import Path

from yibu.errors import ConfigError
from yibu.redaction import register

_WRAPPING = " \t\r\n\v\f\0\ufeff\u00a0\u200b"
_QUOTES = "\"'\u201c\u201d\u2018\u2019`"


def clean_token(text: str, origin: str) -> str | None:
    """The token without what was pasted around it; None where nothing is left.

    ``origin`` is the variable or file that it came from.

    Raises:
        ConfigError: a control character, a space or a letter beyond ASCII is inside of it, which
            no HTTP header can carry.
    """
    token = unwrapped(text)
    if token[:7].lower() == "bearer ":
        token = token[7:].strip(_WRAPPING)
    register(token)
    for place, character in enumerate(token, start=1):
        if not "!" <= character <= "~":
            raise ConfigError(
                "The token in {origin} cannot be one: character {place} of {token_count} is "
                "U+{character:04X}; a token has printable ASCII characters and no spaces.",
                origin=origin,
                place=place,
                token_count=len(token),
                character=ord(character),
                hint="Copy the token into {origin} again, without anything around it",
            )
    return token or None


def unwrapped(text: str) -> str:
    """The text without quotes and invisible characters around it, as pasted text has them."""
    text = text.strip(_WRAPPING)
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip(_WRAPPING)
    return text


def token_of_file(path: Path) -> str | None:
    """The token that a hub's own login keeps in a text file; None where there is no such file.

    Raises:
        ConfigError: as :func:`clean_token`, or the file is no text.
    """
    try:
        # utf-8-sig would take one byte order mark away; editors of Windows write UTF-16 too.
        raw = path.read_bytes()
    except OSError:
        return None  # no login was made, or it is another user's: then there is no token
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        return clean_token(raw.decode(encoding), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(
            "The token file {path} is no text: byte {start} is 0x{raw:02x}.",
            path=path,
            start=error.start,
            raw=raw[error.start],
            hint="Log in again (`hf auth login`), or remove the file",
        ) from error

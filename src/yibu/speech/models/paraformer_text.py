"""Paraformer's tokens to words, as FunASR's ``utils/postprocess_utils.py`` joins them.

A token is a Chinese character, an English word, or a part of one: ``hel@@`` goes on in the next token.
Single letters that follow one another are an abbreviation: ``u s b`` is written USB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Time = tuple[int, int]
"""Begin and end in milliseconds."""

_SPECIAL = ("<s>", "</s>", "<unk>", "<OOV>")
GOES_ON = "@@"


@dataclass(frozen=True, slots=True)
class WrittenPiece:
    """A word, a character of Chinese, or the space after a word of letters."""

    text: str
    time: Time | None = None


_SPACE = WrittenPiece(" ")


def text_of(pieces: Sequence[WrittenPiece]) -> str:
    """The text, with spaces only after words of letters."""
    return "".join(piece.text for piece in pieces).strip()


def words_of(pieces: Sequence[WrittenPiece]) -> list[WrittenPiece]:
    """The pieces that are no spaces."""
    return [piece for piece in pieces if piece.text != " "]


def join(tokens: Sequence[str], times: Sequence[Time] = ()) -> list[WrittenPiece]:
    """The words of ``tokens`` and the spaces between them; ``times`` are those of the tokens, or empty."""
    own: Sequence[Time | None] = times or [None] * len(tokens)
    kept = [
        (token, time) for token, time in zip(tokens, own, strict=False) if token not in _SPECIAL
    ]
    if kept and all(_is_wide(_bare(token)) for token, _ in kept):
        return _abbreviated([WrittenPiece(token.replace(" ", ""), time) for token, time in kept])
    pieces: list[WrittenPiece] = []
    parts = ""
    span: Time | None = None
    after_letters = inside = False
    for token, time in kept:
        if not inside:
            span = time
        if _each(token, _is_wide):
            if after_letters:
                pieces.pop()
            pieces.append(WrittenPiece(token, span))
            after_letters = inside = False
        elif GOES_ON in token:
            parts += token.replace(GOES_ON, "")
            span, after_letters, inside = _until(span, time), False, True
        elif _each(token, _is_letter):
            pieces += [WrittenPiece(parts + token, _until(span, time)), _SPACE]
            parts, after_letters, inside = "", True, False
        else:
            pieces.append(WrittenPiece(token))
    return _abbreviated(pieces)


def _until(span: Time | None, last: Time | None) -> Time | None:
    return None if span is None or last is None else (span[0], last[1])


def _abbreviated(pieces: Sequence[WrittenPiece]) -> list[WrittenPiece]:
    found: list[WrittenPiece] = []
    n = 0
    while n < len(pieces):
        end = n
        while (
            _is_single(pieces[end])
            and end + 2 < len(pieces)
            and pieces[end + 1].text == " "
            and _is_single(pieces[end + 2])
        ):
            end += 2
        if end == n:
            found.append(pieces[n])
        else:
            letters = "".join(piece.text for piece in pieces[n : end + 1 : 2])
            found.append(WrittenPiece(letters.upper(), _until(pieces[n].time, pieces[end].time)))
        n = end + 1
    return found


def _is_single(piece: WrittenPiece) -> bool:
    return len(piece.text) == 1 and piece.text.isascii() and piece.text.isalpha()


def _bare(token: str) -> str:
    for name in (" ", *_SPECIAL):
        token = token.replace(name, "")
    return token


def _each(token: str, test: Callable[[str], bool]) -> bool:
    return bool(token) and all(test(_bare(character)) for character in token)


def _is_wide(text: str) -> bool:
    return "\u4e00" <= text <= "\u9fff" or "0" <= text <= "9" or text == "@"


def _is_letter(text: str) -> bool:
    return text == "'" or (text.isalpha() and not _is_wide(text))

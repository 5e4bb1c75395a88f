"""Token numbers to text, from a sentencepiece model or a list of tokens, without a library.

Only decoding is done here, and decoding needs nothing but the pieces and their kinds. The
file format is sentencepiece's ``ModelProto``, a protocol buffer: field 1 is a piece, in which
field 1 is its text and field 3 its kind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from yibu.errors import VerificationError
from yibu.speech.checkpoints.protobuf import fields

SPACE = "\u2581"
"""Stands for a space in a piece."""

_UNKNOWN_TEXT = " \u2047 "
"""What sentencepiece writes for an unknown piece."""


class Kind(IntEnum):
    """``ModelProto.SentencePiece.Type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The pieces of a tokenizer, by number."""

    pieces: tuple[str, ...]
    kinds: tuple[Kind, ...]

    def __len__(self) -> int:
        return len(self.pieces)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of ``tokens``, as sentencepiece's ``DecodeIds`` gives it."""
        text = bytearray()
        for token in tokens:
            text += self.bytes_of(token, first=not text)
        return text.decode("utf-8", errors="replace")

    def bytes_of(self, token: int, *, first: bool) -> bytes:
        """UTF-8 of one token; a space that begins the text is not written."""
        kind, piece = self.kinds[token], self.pieces[token]
        if kind is Kind.CONTROL:
            return b""
        if kind is Kind.UNKNOWN:
            return _UNKNOWN_TEXT.encode()
        if kind is Kind.BYTE:
            return bytes([int(piece[3:5], 16)])
        if first and piece.startswith(SPACE):
            piece = piece[1:]
        return piece.replace(SPACE, " ").encode()

    @classmethod
    def find(cls, directory: Path) -> Vocabulary:
        """Read ``tokens.json`` or the one ``*.model`` in a model directory.

        Raises ``VerificationError`` where there is neither, or it cannot be read.
        """
        models = sorted(directory.glob("*.model"))
        if models:
            return cls.read_sentencepiece(models[0])
        tokens = directory / "tokens.json"
        if tokens.exists():
            return cls.read_tokens(tokens)
        raise VerificationError(
            "{directory}: no sentencepiece model (*.model) and no tokens.json in it",
            directory=directory,
            hint="Download the model again: chn_jpn_yue_eng_ko_spectok.bpe.model belongs to it",
        )

    @classmethod
    def read_tokens(cls, path: Path) -> Vocabulary:
        """Read a JSON list of pieces, in order."""
        try:
            pieces = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise VerificationError(
                "{path}: not a readable list of tokens: {error}",
                path=path,
                error=error,
                hint="Download it again",
            ) from error
        if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
            raise VerificationError(
                "{path}: a list of strings expected", path=path, hint="Download the model again"
            )
        special = {"<unk>": Kind.UNKNOWN, "<s>": Kind.CONTROL, "</s>": Kind.CONTROL}
        return cls(tuple(pieces), tuple(special.get(piece, Kind.NORMAL) for piece in pieces))

    @classmethod
    def read_sentencepiece(cls, path: Path) -> Vocabulary:
        """Read a sentencepiece ``.model`` file."""
        pieces: list[str] = []
        kinds: list[Kind] = []
        try:
            for number, value in fields(memoryview(path.read_bytes())):
                if number == 1 and isinstance(value, memoryview):
                    piece = dict(fields(value))
                    text, kind = piece[1], piece.get(3, Kind.NORMAL)
                    if not isinstance(text, memoryview) or not isinstance(kind, int):
                        raise ValueError(f"piece {len(pieces)} has fields of another type")
                    pieces.append(bytes(text).decode("utf-8"))
                    kinds.append(Kind(kind))
        except (OSError, ValueError, KeyError) as error:
            raise VerificationError(
                "{path}: not a readable sentencepiece model: {error!r}",
                path=path,
                error=error,
                hint="Download the model again",
            ) from error
        if not pieces:
            raise VerificationError(
                "{path}: no pieces in it", path=path, hint="Download the model again"
            )
        return cls(tuple(pieces), tuple(kinds))

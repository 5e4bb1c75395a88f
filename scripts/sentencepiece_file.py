"""Writes a sentencepiece model from a list of pieces."""

from __future__ import annotations

from pathlib import Path

from sentencepiece import sentencepiece_model_pb2 as proto


def write(path: Path, pieces: list[str]) -> None:
    """Write a unigram model whose piece n is ``pieces[n]``; 0 to 2 are <unk>, <s> and </s>."""
    model = proto.ModelProto()
    kinds = {0: proto.ModelProto.SentencePiece.UNKNOWN}
    kinds |= dict.fromkeys((1, 2), proto.ModelProto.SentencePiece.CONTROL)
    for n, text in enumerate(pieces):
        piece = model.pieces.add()
        piece.piece = text
        piece.score = -float(n) / len(pieces)
        if text.startswith("<|"):
            piece.type = proto.ModelProto.SentencePiece.USER_DEFINED
        elif n in kinds:
            piece.type = kinds[n]
    model.trainer_spec.model_type = proto.TrainerSpec.UNIGRAM
    model.trainer_spec.vocab_size = len(pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = True
    path.write_bytes(model.SerializeToString(deterministic=True))

"""Tokens to text, tags and words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from yibu.errors import VerificationError  # noqa: E402
from yibu.speech.models import ctc, richtext  # noqa: E402
from yibu.speech.models.vocabulary import Kind, Vocabulary  # noqa: E402
from yibu.speech.types import Recognized, Segment  # noqa: E402

VOCABULARY = Vocabulary(
    ("<unk>", "<s>", "</s>", "▁he", "llo", "▁", "你好", "世", ".", "<|en|>", "<0xE4>", "<0xB8>", "<0xAD>"),
    (Kind.UNKNOWN, Kind.CONTROL, Kind.CONTROL, *[Kind.NORMAL] * 6, Kind.USER_DEFINED, *[Kind.BYTE] * 3),
)  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([], ""),
        ([3, 4], "hello"),
        ([9, 3, 4, 8], "<|en|> hello."),
        ([1, 6, 7, 2], "你好世"),
        ([6, 0], "你好 ⁇ "),
        ([10, 11, 12], "中"),
        ([10], "\ufffd"),
    ],
)
def test_decoding(tokens: list[int], text: str) -> None:
    assert VOCABULARY.decode(tokens) == text


def test_decoding_is_sentencepieces(sensevoice_dir: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    path = next(sensevoice_dir.glob("*.model"))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ours = Vocabulary.find(sensevoice_dir)
    assert len(ours) == theirs.get_piece_size()
    rng = random.Random(5)
    for _ in range(300):
        tokens = rng.choices([*range(60), 24884, 24885, 25004, 25016], k=rng.randint(0, 12))
        assert ours.decode(tokens) == theirs.decode(tokens)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x0a\x05abc", b"plain text"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bpe.model").write_bytes(content)
    with pytest.raises(VerificationError, match=r"bpe\.model"):
        Vocabulary.find(tmp_path)


def test_a_list_of_tokens_does_too(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"no tokens\.json"):
        Vocabulary.find(tmp_path)
    (tmp_path / "tokens.json").write_text('["<unk>", "<s>", "</s>", "▁a"]')
    assert Vocabulary.find(tmp_path).decode([1, 3]) == "a"
    (tmp_path / "tokens.json").write_text('{"a": 1}')
    with pytest.raises(VerificationError, match="a list of strings"):
        Vocabulary.find(tmp_path)


def test_greedy_collapses_repeats_and_drops_blanks() -> None:
    emissions = ctc.greedy(np.array([0, 3, 3, 0, 3, 5, 5, 0]))
    assert [(e.token, e.start, e.end) for e in emissions] == [(3, 1, 3), (3, 4, 5), (5, 5, 7)]
    assert ctc.greedy(np.array([], dtype=int)) == []


def test_words_and_characters_have_times() -> None:
    frames = np.array([0, 9, 0, 3, 3, 4, 0, 8, 6, 6, 0, 10, 11, 12, 0])
    found = ctc.words(ctc.greedy(frames), VOCABULARY, origin=100.0, duration=0.9)
    assert [word.text for word in found] == ["hello.", "你", "好", "中"]
    times = [(round(word.start, 3), round(word.end, 3)) for word in found]
    assert times == [(100.15, 100.33), (100.45, 100.51), (100.51, 100.57), (100.63, 100.81)]


def test_tags_say_what_they_say() -> None:
    segment = Segment(1.0, np.zeros(16_000, np.float32))
    raw = "<|yue|><|HAPPY|><|BGM|><|withitn|>你好<|Laughter|>"
    found = richtext.recognized(segment, raw)
    assert found == Recognized("你好", 1.0, 2.0, "yue", "happy", ("bgm", "laughter"), raw=raw)
    assert richtext.recognized(segment, "no tags") == Recognized("no tags", 1.0, 2.0, raw="no tags")
    assert richtext.recognized(segment, "<|en|><|EMO_UNKNOWN|>").emotion == "unknown"


def test_the_text_is_funasrs() -> None:
    funasr = pytest.importorskip("funasr.utils.postprocess_utils")
    rng = random.Random(11)
    words = ["hello", " world", "你好", " ", "The.", ".", "😊", " 😀 ", "  "]
    tags = [f"<|{name}|>" for name in (
        *["zh", "en", "yue", "ja", "ko", "nospeech", "HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED"],
        *["EMO_UNKNOWN", "BGM", "Speech", "Applause", "Laughter", "Cry", "Sneeze", "Breath", "Cough", "Sing"],
        *["Speech_Noise", "withitn", "woitn", "GBG", "Event_UNK", "Unheard"],
    )]  # fmt: skip
    for _ in range(3000):
        parts = [
            "".join(
                rng.choices(tags, k=rng.randint(0, 5)) + rng.choices(words, k=rng.randint(0, 4))
            )
            for _segment in range(rng.randint(1, 4))
        ]
        theirs = funasr.rich_transcription_postprocess(" ".join(parts))
        assert richtext.transcript(parts) == theirs, parts

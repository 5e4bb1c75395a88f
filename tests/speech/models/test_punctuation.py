"""CT-Transformer against FunASR's, text for text, over random weights and texts."""

from __future__ import annotations

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")

from yibu.errors import UnsupportedError, VerificationError  # noqa: E402
from yibu.speech.models.punctuation import Punctuator, split_words  # noqa: E402

from . import random_models  # noqa: E402


@pytest.fixture(scope="module")
def punctuator(funasr_dir: Path) -> Punctuator:
    return Punctuator.load(funasr_dir / "punctuation", threads=1)


def test_it_writes_what_funasr_wrote(punctuator, expected) -> None:
    texts = random_models.texts(len(expected["punctuation"]), 7)
    for text, answer in zip(texts, expected["punctuation"], strict=True):
        assert punctuator.text(text) == answer["text"]


def test_it_writes_what_funasr_writes(tmp_path: Path) -> None:
    """Over models that put many marks, few, and next to none."""
    pytest.importorskip("funasr")
    for seed in range(8):
        directory = random_models.write("punctuation", tmp_path / str(seed), seed)
        ours = Punctuator.load(directory, threads=1)
        texts = random_models.texts(20, seed)
        for text, answer in zip(
            texts, random_models.answers("punctuation", directory, seed, 20), strict=True
        ):
            assert ours.text(text) == answer["text"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # FunASR leaves the dictionary open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_with_a_dictionary_it_writes_what_funasr_writes(tmp_path: Path) -> None:
    pytest.importorskip("funasr")
    pytest.importorskip("jieba")
    directory = random_models.write("punctuation", tmp_path / "model", 3)
    random_models.add_dictionary(directory)
    ours = Punctuator.load(directory, threads=1)
    assert ours.split("大中国 hello 你好人") == ["大中国", "hello", "你好人"]
    for text, answer in zip(
        random_models.texts(10, 3),
        random_models.answers("punctuation", directory, 3, 10),
        strict=True,
    ):
        assert ours.text(text) == answer["text"]


@pytest.mark.filterwarnings("default")
def test_the_onnx_layout_writes_the_same(punctuator, exported: Path, tmp_path: Path) -> None:
    texts = random_models.texts(10, 4)
    onnx = Punctuator.load(exported / "punctuation", threads=1)
    assert [onnx.text(text) for text in texts] == [punctuator.text(text) for text in texts]
    for name in ("tokens.json", "model_quant.onnx"):
        (tmp_path / name).symlink_to(exported / "punctuation" / name)
    config = (exported / "punctuation" / "config.yaml").read_text("utf-8")
    (tmp_path / "config.yaml").write_text(config.replace("model: CTTransformer\n", ""), "utf-8")
    assert Punctuator.load(tmp_path, threads=1).text(texts[0])


def test_pieces_come_as_soon_as_they_are_final(punctuator) -> None:
    text = " ".join(random_models.texts(4, 5))
    words = split_words(text)
    session = punctuator.session()
    pieces, behind = [], []
    for n, word in enumerate(words):
        pieces += session.feed([word])
        behind.append(n + 1 - len(pieces))
    assert len(pieces) > len(words) / 2
    assert min(behind) >= 1
    assert "".join(pieces + session.finish()) == punctuator.text(text)
    assert session.finish() == []
    assert punctuator.text(" ") == ""


def test_directories_of_other_models_are_refused(funasr_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="model 'Paraformer' with encoder 'SANMEncoder'"):
        Punctuator.load(funasr_dir / "paraformer", threads=1)
    for file in (funasr_dir / "punctuation").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "tokens.json").unlink()
    (tmp_path / "tokens.json").write_text('["<unk>", "a"]')
    with pytest.raises(VerificationError, match=r"2 in tokens\.json"):
        Punctuator.load(tmp_path, threads=1)

"""Paraformer against FunASR's own classes, output for output, over random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")

from yibu.errors import UnsupportedError, VerificationError  # noqa: E402
from yibu.speech.loading import Loaded, load  # noqa: E402
from yibu.speech.models import cif  # noqa: E402
from yibu.speech.models.hotwords import HotwordTokens, parsed  # noqa: E402
from yibu.speech.models.paraformer_text import join, text_of, words_of  # noqa: E402
from yibu.speech.precision import cpu_flags  # noqa: E402
from yibu.speech.settings import SpeechSettings  # noqa: E402
from yibu.speech.types import RecognitionOptions, Recognized, Segment  # noqa: E402

from . import random_models  # noqa: E402

KINDS = ("paraformer", "bicif", "seaco")
HOTWORDS = ("seaco", "contextual")
PRECISIONS = ["fp32", "int8"] + (["bf16"] if cpu_flags() & {"avx512_bf16", "amx_bf16"} else [])


def attempt(directory: Path, vad_dir: Path, precision: str = "fp32", **changes: Any) -> Loaded:
    return load(SpeechSettings(directory, vad=vad_dir, precision=precision, **changes))


@pytest.fixture(scope="module")
def loaded(funasr_dir: Path, vad_dir: Path) -> dict[str, Loaded]:
    return {kind: attempt(funasr_dir / kind, vad_dir) for kind in KINDS}


def heard(loaded: Loaded, sound: Any, hotwords: str = "") -> Recognized:
    options = RecognitionOptions(words=True, hotwords=tuple(hotwords.split()))
    (answer,) = loaded.recognizer.recognize([Segment(0.0, sound)], [options])
    return answer


def check(kind: str, loaded: Loaded, seed: int, expected: list[dict[str, Any]]) -> None:
    """FunASR parts words by spaces where it tells their times, and lets the last one end behind the
    sound's."""
    sounds = random_models.noises(len(expected), seed)
    for n, (sound, answer) in enumerate(zip(sounds, expected, strict=True)):
        found = heard(loaded, sound, random_models.hotwords(n) if kind in HOTWORDS else "")
        if "timestamp" not in answer:
            assert found.text == answer["text"]
            continue
        assert found.raw == answer["text"]
        end = len(sound) / 16
        times = [[min(start, end), min(stop, end)] for start, stop in answer["timestamp"]]
        mine = [[word.start * 1000, word.end * 1000] for word in found.words]
        assert np.allclose(mine, times, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_funasr_did(loaded, expected, kind: str) -> None:
    check(kind, loaded[kind], 7, expected[kind])


@pytest.mark.parametrize("kind", [*KINDS, "contextual"])
def test_it_answers_as_funasr_does(vad_dir: Path, tmp_path: Path, kind: str) -> None:
    """Over weights that no fixture holds."""
    pytest.importorskip("funasr")
    changed = 0
    for seed in (1, 2, 3):
        directory = random_models.write(kind, tmp_path / str(seed), seed)
        answers = random_models.answers(kind, directory, seed, 4)
        loaded = attempt(directory, vad_dir)
        check(kind, loaded, seed, answers)
        assert loaded.recognizer.takes_hotwords == (kind in HOTWORDS)
        if kind in HOTWORDS:
            for sound in random_models.noises(4, seed):
                changed += heard(loaded, sound, "天气 你好").text != heard(loaded, sound).text
    assert bool(changed) == (kind in HOTWORDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_other_segments_never_change_a_text(
    funasr_dir: Path, vad_dir: Path, kind: str, precision: str
) -> None:
    recognizer = attempt(funasr_dir / kind, vad_dir, precision).recognizer
    segments = [Segment(0.0, sound) for sound in random_models.noises(12, 5)]
    options = [RecognitionOptions(words=True, hotwords=("你好",) * (n % 2)) for n in range(12)]
    alone = [recognizer.recognize([s], [o])[0] for s, o in zip(segments, options, strict=True)]
    order = np.random.default_rng(3).permutation(12)
    together = recognizer.recognize([segments[n] for n in order], [options[n] for n in order])
    assert together == [alone[n] for n in order]


def test_hotwords_change_what_is_heard(loaded) -> None:
    (sound,) = random_models.noises(1, 8)
    plain, hot = heard(loaded["seaco"], sound), heard(loaded["seaco"], sound, "天气 你好 world")
    assert loaded["seaco"].recognizer.takes_hotwords
    assert not loaded["bicif"].recognizer.takes_hotwords
    assert plain.text != hot.text
    assert heard(loaded["bicif"], sound).text == heard(loaded["bicif"], sound, "天气").text


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["paraformer", "bicif"])
def test_the_onnx_layout_says_the_same(
    loaded, exported: Path, vad_dir: Path, tmp_path: Path, kind: str
) -> None:
    sounds = [*random_models.noises(6, 7), np.zeros(1_000, np.float32)]
    onnx = attempt(exported / kind, vad_dir, "auto")
    assert onnx.recognizer.precision == "fp32"
    for sound in sounds:
        ours, theirs = heard(onnx, sound), heard(loaded[kind], sound)
        assert ours.text == theirs.text
        if kind == "bicif":
            mine = [[word.start, word.end] for word in ours.words]
            assert np.allclose(mine, [[w.start, w.end] for w in theirs.words], atol=0.011)
    segments = [Segment(0.0, sound) for sound in sounds]
    together = onnx.recognizer.recognize(segments, [RecognitionOptions()] * len(segments))
    assert [answer.text for answer in together] == [heard(onnx, sound).text for sound in sounds]
    rounded = attempt(exported / kind, vad_dir, "int8").recognizer
    assert rounded.recognize(segments, [RecognitionOptions()] * len(segments))[0].text
    with pytest.raises(UnsupportedError, match="from ONNX in fp32 and int8"):
        attempt(exported / kind, vad_dir, "bf16")
    for name in ("config.yaml", "am.mvn", "tokens.json"):
        (tmp_path / name).symlink_to(exported / kind / name)
    (tmp_path / "model.onnx").symlink_to(exported / "punctuation" / "model.onnx")
    with pytest.raises(UnsupportedError, match="its inputs are inputs, text_lengths"):
        attempt(tmp_path, vad_dir)


def test_nothing_to_hear_gives_empty_text(loaded) -> None:
    for kind in KINDS:
        recognizer = loaded[kind].recognizer
        assert recognizer.recognize([], []) == []
        (answer,) = recognizer.recognize(
            [Segment(3.0, np.zeros(100, np.float32))], [RecognitionOptions()]
        )
        assert (answer.text, answer.start, answer.words) == ("", 3.0, ())


def changed(directory: Path, to: Path, old: str, new: str) -> Path:
    to.mkdir()
    for file in directory.iterdir():
        (to / file.name).symlink_to(file)
    config = (directory / "config.yaml").read_text("utf-8")
    assert old in config
    (to / "config.yaml").unlink()
    (to / "config.yaml").write_text(config.replace(old, new), "utf-8")
    return to


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("bicif", "cnn_blstm", "cnn_attn", "upsample_type cnn_attn"),
        ("paraformer", "CifPredictorV2", "CifPredictor", "predictor CifPredictor"),
        ("paraformer", "ParaformerSANMDecoder", "SanmDecoder", "decoder is 'SanmDecoder'"),
        ("paraformer", "threshold: 1.0", "threshold: 0.9", r"threshold 0\.9"),
        (
            "seaco",
            "bias_encoder_type: lstm",
            "bias_encoder_type: mean",
            "bias_encoder_type is 'mean'",
        ),
        ("paraformer", "model: Paraformer", "model: EParaformer", "class 'EParaformer'"),
    ],
)
def test_networks_that_are_not_built_are_refused(
    funasr_dir: Path, vad_dir: Path, tmp_path: Path, kind: str, old: str, new: str, message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        attempt(changed(funasr_dir / kind, tmp_path / kind, old, new), vad_dir)


def test_files_of_two_models_are_refused(funasr_dir: Path, vad_dir: Path, tmp_path: Path) -> None:
    directory = changed(funasr_dir / "bicif", tmp_path / "one", "num_blocks: 3", "num_blocks: 9")
    with pytest.raises(VerificationError, match="not of one model"):
        attempt(directory, vad_dir)
    (directory / "tokens.json").unlink()
    (directory / "tokens.json").write_text(json.dumps(["<blank>", "<s>", "</s>"]))
    (directory / "config.yaml").write_text(
        (funasr_dir / "bicif" / "config.yaml").read_text("utf-8")
    )
    with pytest.raises(VerificationError, match="outputs, the tokenizer 3 tokens"):
        attempt(directory, vad_dir)
    with pytest.raises(UnsupportedError, match="on cuda; it is served on the CPU"):
        attempt(directory, vad_dir, device="cuda")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", ()),
        ("阿里巴巴 通义实验室", ("阿里巴巴", "通义实验室")),
        ("阿里巴巴 20", ("阿里巴巴",)),
        ("阿里巴巴 20\nNew York 15\n魔搭", ("阿里巴巴", "New York", "魔搭")),
        ('{"阿里巴巴": 20, "hello world": 40}', ("阿里巴巴", "hello world")),
        ('["魔搭", "魔搭"]', ("魔搭",)),
        ("魔搭，通义、语音", ("魔搭", "通义", "语音")),
    ],
)
def test_hotwords_are_read_as_people_write_them(written: str, words: tuple[str, ...]) -> None:
    assert parsed(written) == words


def test_hotwords_become_the_models_tokens(funasr_dir: Path) -> None:
    vocabulary = random_models.VOCABULARY
    tokens = HotwordTokens.read(vocabulary, funasr_dir / "seaco")

    def split(word: str) -> list[str]:
        return [vocabulary[n] for n in tokens.of(word)]

    assert split("你好") == ["你", "好"]
    assert split("HelloLD") == ["hel@@", "lo", "ld"]
    assert split("犇好 zebra") == ["<unk>", "好", "<unk>"]


@pytest.mark.parametrize(
    ("tokens", "text", "words"),
    [
        ("你 好", "你好", ["你", "好"]),
        ("hel@@ lo wor@@ ld", "hello world", ["hello", "world"]),
        ("u s b 大", "USB大", ["USB", "大"]),
        ("你 ok 好 it's a", "你ok好it's a", ["你", "ok", "好", "it's", "a"]),
        ("<s> 你 <unk> 好 </s>", "你好", ["你", "好"]),
        ("hel@@", "", []),
    ],
)
def test_tokens_become_words(tokens: str, text: str, words: list[str]) -> None:
    pieces = join(tokens.split())
    assert text_of(pieces) == text
    assert [piece.text for piece in words_of(pieces)] == words


def test_words_are_funasrs() -> None:
    """Over thousands of random tokens, with times and without."""
    postprocess = pytest.importorskip("funasr.utils.postprocess_utils").sentence_postprocess
    rng = np.random.default_rng(0)
    vocabulary = [*random_models.VOCABULARY[3:], "1", "9", "12", "'", "@", "z"]
    for _ in range(3000):
        tokens = [str(token) for token in rng.choice(vocabulary, int(rng.integers(0, 9)))]
        text, words = postprocess(list(tokens))
        pieces = join(tokens)
        assert (text_of(pieces), [p.text for p in words_of(pieces)]) == (text, words)
        tokens = [token for token in tokens if token != "<unk>"]
        times = [(10 * n, 10 * n + 7) for n in range(len(tokens))]
        text, spans, words = postprocess(list(tokens), [list(time) for time in times])
        found = words_of(join(tokens, times))
        assert [p.text for p in found] == words
        assert [list(p.time or ()) for p in found] == spans


def test_times_are_funasrs() -> None:
    torch = pytest.importorskip("torch")
    tools = pytest.importorskip("funasr.utils.timestamp_tools")
    rng = np.random.default_rng(1)
    for _ in range(300):
        alphas = (rng.random(int(rng.integers(20, 200))) ** 4).astype(np.float32)
        peaks = cif.peaks(alphas)
        fired = int((peaks >= 1 - 1e-4).sum())
        tokens = max(1, fired - 1 + int(rng.integers(-1, 2)))
        theirs = tools.ts_prediction_lfr6_standard(
            torch.from_numpy(alphas.copy()), torch.from_numpy(peaks.copy()), ["x"] * tokens
        )[1]
        mine = cif.milliseconds(cif.token_times(alphas, peaks, tokens, 10.0 * 6 / 1000 / 3))
        assert [list(time) for time in mine] == theirs

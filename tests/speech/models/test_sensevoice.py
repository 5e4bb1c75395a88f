"""SenseVoice's fast path against FunASR's, alone against batched, and against the marks."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")

from yibu.errors import (  # noqa: E402
    EngineStartError,
    InvalidRequestError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from yibu.speech.kinds import Layout, detect  # noqa: E402
from yibu.speech.loading import Loaded, load  # noqa: E402
from yibu.speech.models.grouping import groups, padded_length  # noqa: E402
from yibu.speech.precision import choose, cpu_flags  # noqa: E402
from yibu.speech.settings import SpeechSettings  # noqa: E402
from yibu.speech.types import RecognitionOptions, Recognized, Segment  # noqa: E402

from .conftest import FIXTURE  # noqa: E402

PRECISIONS = ["fp32", "int8"] + (["bf16"] if cpu_flags() & {"avx512_bf16", "amx_bf16"} else [])


@pytest.fixture(scope="session")
def fast(sensevoice_dir: Path, vad_dir: Path) -> dict[str, Loaded]:
    return {
        precision: load(SpeechSettings(sensevoice_dir, vad=vad_dir, precision=precision))
        for precision in PRECISIONS
    }


@pytest.fixture(scope="session")
def reference(sensevoice_dir: Path, vad_dir: Path) -> Loaded:
    pytest.importorskip("funasr")
    return load(SpeechSettings(sensevoice_dir, vad=vad_dir, path="reference"))


def transcribe(loaded: Loaded, samples, options: RecognitionOptions) -> list[Recognized]:
    session = loaded.segmenter.session()
    segments = session.feed(samples) + session.finish()
    return loaded.recognizer.recognize(segments, [options] * len(segments))


@pytest.mark.parametrize(
    "options",
    [
        RecognitionOptions(),
        RecognitionOptions(use_itn=False),
        RecognitionOptions(language="zh"),
        RecognitionOptions(language="en"),
    ],
    ids=["auto", "woitn", "zh", "en"],
)
def test_fast_is_reference_token_for_token(
    fast, reference, clips, options: RecognitionOptions
) -> None:
    for clip in clips:
        ours = transcribe(fast["fp32"], clip.samples, options)
        (theirs,) = transcribe(reference, clip.samples, options)
        assert " ".join(answer.raw for answer in ours) == theirs.raw
        assert [answer.text for answer in ours] == [theirs.text]


def test_it_reads_what_was_said(fast, clips) -> None:
    wrong = 0
    for clip in clips:
        (answer,) = transcribe(fast["fp32"], clip.samples, RecognitionOptions(use_itn=False))
        said = answer.raw.split("<|woitn|>")[1].strip()
        wrong += said != clip.text
        assert answer.language in ("en", "zh")
        assert answer.emotion in ("happy", "sad", "neutral")  # the unknown one is banned
        assert answer.events == ("speech",)
    assert wrong <= 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_other_segments_never_change_a_text(fast, clips, precision: str) -> None:
    """To the last bit of the scores, at every precision; see ``padded_length``."""
    recognizer = fast[precision].recognizer
    rng = np.random.default_rng(4)
    samples = np.concatenate([clip.samples for clip in clips])
    segments = []
    for _ in range(24):
        start, length = rng.integers(0, 100_000), rng.integers(500, 200_000)
        segments.append(Segment(0.0, samples[start : start + length]))
    mixed = [
        RecognitionOptions(
            language=str(rng.choice(["auto", "zh", "en"])),
            use_itn=bool(rng.integers(2)),
            words=True,
        )
        for _ in segments
    ]
    alone = [recognizer.recognize([s], [o])[0] for s, o in zip(segments, mixed, strict=True)]
    for _ in range(3):
        order = rng.permutation(len(segments))
        together = recognizer.recognize([segments[n] for n in order], [mixed[n] for n in order])
        assert [alone[n] for n in order] == together


def test_bit_for_bit_in_any_batch(fast) -> None:
    encoder = fast["fp32"].recognizer._encoder
    rng = np.random.default_rng(9)
    frames = rng.standard_normal((6, 41, 560), dtype=np.float32)
    mask = np.ones((6, 41), np.float32)
    mask[3:, 30:] = 0
    hidden = encoder._encoder(frames, mask)[0].copy()
    for n in range(6):
        own = [frames[n : n + 1].copy(), mask[n : n + 1].copy()]
        single = encoder._encoder(*own)[0]
        assert np.array_equal(hidden[n], single[0])


def test_int8_differences_are_counted(fast, clips, record_property) -> None:
    tokens = changed = 0
    for clip in clips:
        exact = transcribe(fast["fp32"], clip.samples, RecognitionOptions())
        rounded = transcribe(fast["int8"], clip.samples, RecognitionOptions())
        for a, b in zip(exact, rounded, strict=True):
            tokens += len(a.tokens)
            changed += sum(x != y for x, y in zip(a.tokens, b.tokens, strict=False))
            changed += abs(len(a.tokens) - len(b.tokens))
    record_property("int8_changed_tokens", f"{changed} of {tokens}")
    assert tokens > 50
    assert changed / tokens <= 0.02


@pytest.mark.parametrize("precision", PRECISIONS)
def test_words_stand_where_they_were_spoken(fast, clips, precision: str) -> None:
    checked = 0
    for clip in clips:
        answers = transcribe(
            fast[precision], clip.samples, RecognitionOptions(words=True, use_itn=False)
        )
        found = [word for answer in answers for word in answer.words]
        marks = clip.marks
        if clip.language == "zh":  # a word's characters share its mark
            marks = [m for m in marks for _ in m[0] if len(m[0]) == 1]
            found = [w for w in found if any(w.text == m[0] for m in marks)]
        if [word.text for word in found] != [mark[0] for mark in marks]:
            continue
        for word, (_, start, end) in zip(found, marks, strict=True):
            assert abs(word.start - start) <= 0.12
            assert abs(word.end - end) <= 0.12
            checked += 1
    assert checked >= 15


def test_unknown_languages_are_refused(fast, clips) -> None:
    segment = Segment(0.0, clips[0].samples)
    with pytest.raises(InvalidRequestError, match="language 'fr'"):
        fast["fp32"].recognizer.recognize([segment], [RecognitionOptions(language="fr")])


def test_nothing_to_hear_gives_empty_text(fast) -> None:
    recognizer = fast["fp32"].recognizer
    assert recognizer.recognize([], []) == []
    (answer,) = recognizer.recognize(
        [Segment(3.0, np.zeros(100, np.float32))], [RecognitionOptions()]
    )
    assert (answer.text, answer.start, answer.words) == ("", 3.0, ())


def test_padding_depends_on_the_own_length_alone() -> None:
    lengths = [5, 17, 18, 40, 41, 120, 128, 129, 504]
    for length in lengths:
        assert length <= padded_length(length) <= length * 17 / 16 + 1
        assert padded_length(padded_length(length)) == padded_length(length)
    for group in groups(lengths * 40):
        widths = {padded_length((lengths * 40)[n]) for n in group}
        assert len(widths) == 1
        assert widths.pop() * len(group) <= 512


@pytest.mark.parametrize(
    ("flags", "files", "expected", "because"),
    [
        ({"avx512_bf16", "avx512_vnni"}, {"model.pt"}, "int8", "avx512_vnni"),
        ({"avx_vnni"}, {"model.pt"}, "int8", "avx_vnni"),
        ({"avx512_bf16", "AuthenticAMD"}, {"model.pt"}, "bf16", "avx512_bf16"),
        ({"avx512_bf16", "GenuineIntel"}, {"model.pt"}, "fp32", "no AMX"),
        ({"avx2"}, {"model.pt"}, "fp32", "neither"),
        ({"avx512_bf16", "avx512_vnni", "AuthenticAMD"}, {"model.onnx"}, "bf16", "avx512_bf16"),
        ({"avx512_bf16", "avx512_vnni", "amx_bf16"}, {"model.onnx"}, "bf16", "amx_bf16"),
        ({"avx512_bf16", "avx512_vnni"}, {"model.onnx", "model_quant.onnx"}, "fp32", "no AMX"),
        ({"avx512_vnni"}, {"model.onnx"}, "fp32", "no bf16 products"),
        ({"avx512_vnni"}, {"model_quant.onnx"}, "int8", "only model_quant.onnx"),
    ],
)
def test_auto_says_why(flags: set, files: set, expected: str, because: str) -> None:
    chosen = choose("auto", "cpu", frozenset(flags), files=frozenset(files))
    assert chosen.precision == expected
    assert because in chosen.reason


@pytest.mark.parametrize(
    ("flags", "because"),
    [
        ({"avx2"}, "saves memory and no time"),
        ({"avx2", "avx_vnni"}, "as configured"),
        (set(), "as configured"),
    ],
)
def test_int8_that_gains_no_time_says_so(flags: set, because: str) -> None:
    chosen = choose("int8", "cpu", frozenset(flags), files=frozenset({"model.pt"}))
    assert chosen.precision == "int8"
    assert because in chosen.reason
    assert ("no time" in chosen.reason) == ("no time" in because)


def test_the_processor_is_read_with_its_maker(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    one = "processor\t: {}\nvendor_id\t: GenuineIntel\nflags\t\t: fpu amx_bf16\nbugs\t\t:\n\n"
    listing.write_text(one.format(0) + one.format(1))
    assert cpu_flags(listing) == {"GenuineIntel", "fpu", "amx_bf16"}
    listing.write_text("processor\t: 0\nFeatures\t: asimd bf16\n\n")
    assert cpu_flags(listing) == {"asimd", "bf16"}
    assert cpu_flags(tmp_path / "none") == frozenset()


def test_precisions_the_device_lacks_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="no bf16 instructions"):
        choose("bf16", "cpu", frozenset({"avx2"}), files=frozenset({"model.pt"}))
    with pytest.raises(UnsupportedError, match="not served on CUDA"):
        choose("int8", "cuda", frozenset(), files=frozenset({"model.pt"}))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_auto_may_choose_keeps_the_text(fast, clips, precision: str) -> None:
    for clip in clips:
        exact = transcribe(fast["fp32"], clip.samples, RecognitionOptions())
        other = transcribe(fast[precision], clip.samples, RecognitionOptions())
        assert [a.tokens for a in exact] == [a.tokens for a in other]


def copy_of(directory: Path, to: Path) -> Path:
    return Path(shutil.copytree(directory, to / "copy", ignore=shutil.ignore_patterns("clips")))


def attempt(directory: Path, vad_dir: Path | None, **changes: object) -> Loaded:
    return load(SpeechSettings(directory, vad=vad_dir, **({"precision": "fp32"} | changes)))


@pytest.mark.parametrize("name", ["config.yaml", "am.mvn", "model.pt"])
def test_missing_and_damaged_files_are_named(
    sensevoice_dir: Path, vad_dir: Path, tmp_path: Path, name: str
) -> None:
    directory = copy_of(sensevoice_dir, tmp_path)
    for damage in (b"\x00\xff broken", b""):
        (directory / name).write_bytes(damage)
        with pytest.raises(VerificationError, match=name.replace(".", r"\.")):
            attempt(directory, vad_dir)
    (directory / name).unlink()
    with pytest.raises(VerificationError, match=r"holds|is missing|not a readable"):
        attempt(directory, vad_dir)


def test_files_of_two_models_are_refused(
    sensevoice_dir: Path, vad_dir: Path, tmp_path: Path
) -> None:
    directory = copy_of(sensevoice_dir, tmp_path)
    for model in directory.glob("*.model"):
        model.unlink()
    (directory / "tokens.json").write_text(json.dumps(["<unk>", "<s>", "</s>"]))
    with pytest.raises(VerificationError, match=r"25055 outputs, the tokenizer 3 tokens"):
        attempt(directory, vad_dir)
    config = (directory / "config.yaml").read_text()
    (directory / "config.yaml").write_text(config.replace("num_blocks: 3", "num_blocks: 9"))
    with pytest.raises(VerificationError, match="not of one model"):
        attempt(directory, vad_dir)
    (directory / "config.yaml").write_text(config.replace("SenseVoiceSmall", "Whisper"))
    with pytest.raises(UnsupportedError, match="class 'Whisper'"):
        attempt(directory, vad_dir)


def test_directories_are_told_apart(sensevoice_dir: Path, tmp_path: Path) -> None:
    assert detect(sensevoice_dir) is Layout.FUNASR
    with pytest.raises(VerificationError, match="is no directory"):
        detect(tmp_path / "nowhere")
    with pytest.raises(VerificationError, match="holds nothing"):
        detect(tmp_path)
    (tmp_path / "model_quant.onnx").touch()
    assert detect(tmp_path) is Layout.ONNX
    (tmp_path / "model_quant.onnx").unlink()
    for name in ("model.bin", "config.json"):
        (tmp_path / name).touch()
    assert detect(tmp_path) is Layout.CTRANSLATE2


def test_funasr_is_not_given_a_vad_that_it_cannot_load(
    sensevoice_dir: Path, vad_dir: Path, tmp_path: Path
) -> None:
    for name in ("config.yaml", "am.mvn", "model.onnx"):
        shutil.copy(vad_dir / name, tmp_path / name)
    with pytest.raises(VerificationError, match=r"holds no model\.pt"):
        attempt(sensevoice_dir, tmp_path, path="reference")


@pytest.mark.parametrize("bad", [{"precision": "fp8"}, {"path": "quick"}, {"device": "npu"}])
def test_unknown_values_are_refused(sensevoice_dir: Path, vad_dir: Path, bad: dict) -> None:
    with pytest.raises(UsageError, match="is not known"):
        attempt(sensevoice_dir, vad_dir, **bad)


def test_the_vad_is_found_beside_the_model(
    sensevoice_dir: Path, vad_dir: Path, tmp_path: Path
) -> None:
    directory = copy_of(sensevoice_dir, tmp_path)
    if importlib.util.find_spec("faster_whisper") is None:
        with pytest.raises(UsageError, match="no voice activity detection"):
            attempt(directory, None)
    beside = tmp_path / "speech_fsmn_vad_zh-cn-16k-common-pytorch"
    beside.symlink_to(vad_dir)
    assert attempt(directory, None).segmenter.name == "fsmn-vad"


@pytest.fixture(scope="session")
def onnx_dir(sensevoice_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as FunASR exports it, and quantised as FunASR quantises.

    It takes torch to export, and the environment that serves the layout has none: the export
    is kept where YIBU_TEST_CACHE says, so that a later run without torch finds it.
    """
    number = hashlib.sha256(FIXTURE.read_bytes()).hexdigest()[:12]
    cache = os.environ.get("YIBU_TEST_CACHE") or str(tmp_path_factory.mktemp("cache"))
    kept = Path(cache) / f"sensevoice-onnx-{number}"
    if not kept.exists():
        work = kept.with_name(f"{kept.name}.{os.getpid()}")
        export(sensevoice_dir, work)
        work.rename(kept)
    return kept


def export(sensevoice_dir: Path, directory: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    funasr = pytest.importorskip("funasr")
    quantization = pytest.importorskip("onnxruntime.quantization")
    directory.mkdir(parents=True)
    for name in ("config.yaml", "am.mvn"):
        shutil.copy(sensevoice_dir / name, directory / name)
    for model in sensevoice_dir.glob("*.model"):
        shutil.copy(model, directory / model.name)
    model = funasr.AutoModel(model=str(sensevoice_dir), disable_update=True).model
    exported = model.export(max_seq_len=512, device="cpu").eval()
    torch.onnx.export(
        exported, exported.export_dummy_inputs(), directory / "model.onnx", opset_version=14,
        input_names=exported.export_input_names(), output_names=exported.export_output_names(),
        dynamic_axes=exported.export_dynamic_axes(), dynamo=False,
    )  # fmt: skip
    quantization.quantize_dynamic(directory / "model.onnx", directory / "model_quant.onnx")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_onnx_layout_says_the_same(fast, onnx_dir, vad_dir, clips, precision: str) -> None:
    loaded = attempt(onnx_dir, vad_dir, precision=precision)
    for clip in clips:
        ours = transcribe(loaded, clip.samples, RecognitionOptions(words=True))
        theirs = transcribe(fast[precision], clip.samples, RecognitionOptions(words=True))
        assert [a.text for a in ours] == [a.text for a in theirs]
    segments = [Segment(0.0, clip.samples) for clip in clips]
    together = loaded.recognizer.recognize(segments, [RecognitionOptions()] * len(segments))
    alone = [loaded.recognizer.recognize([s], [RecognitionOptions()])[0] for s in segments]
    assert together == alone


@pytest.mark.filterwarnings("default")
def test_onnx_files_missing_or_damaged_are_named(onnx_dir, vad_dir, tmp_path) -> None:
    directory = copy_of(onnx_dir, tmp_path)
    (directory / "model.onnx").unlink()
    assert attempt(directory, vad_dir, precision="auto").recognizer.precision == "int8"
    with pytest.raises(VerificationError, match=r"model\.onnx is missing"):
        attempt(directory, vad_dir, precision="fp32")
    for name, precision in (("model.onnx", "fp32"), ("model_quant.onnx", "int8")):
        (directory / name).write_bytes(b"no model")
        with pytest.raises(VerificationError, match=name):
            attempt(directory, vad_dir, precision=precision)


def test_the_torch_encoder_says_the_same(fast, sensevoice_dir: Path, clips) -> None:
    """The one that CUDA uses, run on the CPU."""
    pytest.importorskip("torch")
    from yibu.speech.models.sensevoice import SenseVoiceRecognizer
    from yibu.speech.models.torch_encoder import TorchEncoder

    exact = fast["fp32"].recognizer
    for precision in ("fp32", "bf16"):
        encoder = TorchEncoder.load(
            sensevoice_dir, precision=precision, device="cpu", threads=1, banned=(25009,)
        )
        ours = SenseVoiceRecognizer("torch", encoder, exact._normalizer, exact._vocabulary)
        segments = [Segment(0.0, clip.samples) for clip in clips]
        options = [RecognitionOptions(words=True)] * len(segments)
        found = ours.recognize(segments, options)
        expected = exact.recognize(segments, options)
        if precision == "fp32":
            assert found == expected
        # One speaker's emotion lies on the edge between two; the words do not.
        assert [a.words for a in found] == [a.words for a in expected]


def test_cuda_without_a_device_says_so(sensevoice_dir: Path, vad_dir: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    for precision in ("auto", "fp32", "bf16"):
        for device in ("cuda", "cuda:1"):
            with pytest.raises(EngineStartError, match="sees no CUDA device"):
                attempt(sensevoice_dir, vad_dir, device=device, precision=precision)


REAL = os.environ.get("YIBU_TEST_SENSEVOICE", "")


@pytest.mark.skipif(not REAL, reason="YIBU_TEST_SENSEVOICE names no real SenseVoiceSmall directory")
def test_the_real_model_reads_a_real_clip(vad_dir: Path) -> None:
    from .conftest import SHARED, read_wav

    clip = SHARED / "clips" / "funasr_asr_example.wav"
    if not clip.exists():
        pytest.skip(f"{clip} is not there")
    loaded = attempt(Path(REAL), vad_dir, precision="auto")
    (answer,) = transcribe(loaded, read_wav(clip), RecognitionOptions())
    assert answer.language == "zh"
    assert "达摩院推出的语音识别模型" in answer.text

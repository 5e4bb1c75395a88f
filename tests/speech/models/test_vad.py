"""The real FSMN-VAD: our segments against FunASR's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from yibu.errors import UnsupportedError, VerificationError  # noqa: E402
from yibu.speech.checkpoints.onnx import read_onnx  # noqa: E402
from yibu.speech.checkpoints.pytorch import read_checkpoint  # noqa: E402
from yibu.speech.features import fbank  # noqa: E402
from yibu.speech.types import Segment  # noqa: E402
from yibu.speech.vad.endpoint import Frames  # noqa: E402
from yibu.speech.vad.fsmn import FsmnVad  # noqa: E402
from yibu.speech.vad.fsmn_onnx import onnx_weights  # noqa: E402

ONNX = {"config.yaml": "config.yaml", "am.mvn": "am.mvn", "model.onnx": "model.onnx"}
"""File → its name in the ONNX layout."""
OLDER_ONNX = {"config.yaml": "vad.yaml", "am.mvn": "vad.mvn", "model.onnx": "model.onnx"}


def silence(seconds: float):
    noise = np.random.default_rng(2).standard_normal(int(seconds * 16000))
    return (noise * 1e-4).astype(np.float32)


@pytest.fixture
def speech_with_gaps(clips):
    """58 seconds: one of FunASR's chunks, within which its patience is constant."""
    parts = [silence(5.0)]
    for clip, gap in zip(clips, (0.5, 6.0, 2.4, 9.0, 1.9, 1.0), strict=False):
        parts += [clip.samples, silence(gap)]
    audio = np.concatenate(parts)
    assert 40 * 16000 < len(audio) < 58 * 16000
    return audio


def spans(vad: FsmnVad, audio, chunk: int) -> list[list[int]]:
    """What the endpointer says, in ms, before the segment rule joins anything."""
    session = vad.session()
    found: list[Frames] = []
    feed, finish = session._endpointer.feed, session._endpointer.finish

    def recorded(frames: list[Frames]) -> list[Frames]:
        found.extend(frames)
        return frames

    session._endpointer.feed = lambda silence: recorded(feed(silence))
    session._endpointer.finish = lambda: recorded(finish())
    for at in range(0, len(audio), chunk):
        session.feed(audio[at : at + chunk])
    session.finish()
    return [[frames.start * 10, frames.end * 10] for frames in found]


def test_spans_are_funasrs_to_the_frame(vad_dir: Path, speech_with_gaps) -> None:
    funasr = pytest.importorskip("funasr")
    model = funasr.AutoModel(
        model=str(vad_dir), disable_update=True, disable_pbar=True, max_single_segment_time=30000
    )
    theirs = model.generate(input=speech_with_gaps, cache={})[0]["value"]
    assert len(theirs) >= 4
    assert spans(FsmnVad.load(vad_dir), speech_with_gaps, 9_999) == theirs


def test_how_the_file_comes_in_does_not_matter(vad_dir: Path, speech_with_gaps) -> None:
    vad = FsmnVad.load(vad_dir)
    expected = spans(vad, speech_with_gaps, len(speech_with_gaps))
    for chunk in (160, 399, 4_001, 160_000):
        assert spans(vad, speech_with_gaps, chunk) == expected


def test_gaps_are_skipped_and_segments_carry_their_features(
    vad_dir: Path, speech_with_gaps
) -> None:
    session = FsmnVad.load(vad_dir).session()
    segments = session.feed(speech_with_gaps) + session.finish()
    assert sum(segment.duration for segment in segments) < len(speech_with_gaps) / 16000 - 15
    for segment in segments:
        start = round(segment.start * 16000)
        assert np.array_equal(
            segment.samples, speech_with_gaps[start : start + len(segment.samples)]
        )
        assert segment.features is not None
        assert np.abs(fbank(segment.samples) - segment.features).max() < 1e-3


def test_segments_may_carry_their_features_only(vad_dir: Path, speech_with_gaps) -> None:
    """For the model that takes the filter bank, samples would be two thirds of what waits."""

    def segments(*, samples: bool) -> list[Segment]:
        session = FsmnVad.load(vad_dir, samples=samples).session()
        return session.feed(speech_with_gaps) + session.finish()

    whole, light = segments(samples=True), segments(samples=False)
    assert len(whole) == len(light) > 1
    for one, other in zip(whole, light, strict=True):
        assert len(other.samples) == 0
        assert (one.start, one.end, one.duration) == (other.start, other.end, other.duration)
        assert one.features is not None
        assert other.features is not None
        assert np.array_equal(one.features, other.features)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 560, 800, 16000])
def test_little_or_silent_audio_has_no_segments(vad_dir: Path, samples: int) -> None:
    session = FsmnVad.load(vad_dir).session()
    assert session.feed(np.zeros(samples, np.float32)) + session.finish() == []


def test_memory_does_not_grow_with_the_file(vad_dir: Path, clips) -> None:
    session = FsmnVad.load(vad_dir).session()
    minute = np.resize(np.concatenate([clips[0].samples, silence(20)]), 60 * 16000)
    longest = 0
    for _ in range(20):
        session.feed(minute)
        held = sum(len(block) for block in session._cutter._samples._blocks)
        longest = max(longest, held)
    assert longest <= (60 + 45) * 16000


def test_a_damaged_vad_is_named(tmp_path: Path, vad_dir: Path) -> None:
    with pytest.raises(VerificationError, match=r"config\.yaml is missing"):
        FsmnVad.load(tmp_path)
    for name in ("config.yaml", "am.mvn"):
        (tmp_path / name).write_bytes((vad_dir / name).read_bytes())
    with pytest.raises(VerificationError, match=r"model\.pt is missing"):
        FsmnVad.load(tmp_path)


def onnx_layout(vad_dir: Path, to: Path, names: dict[str, str]) -> Path:
    to.mkdir(exist_ok=True)
    for name, theirs in names.items():
        shutil.copy(vad_dir / name, to / theirs)
    return to


@pytest.mark.parametrize("names", [ONNX, OLDER_ONNX], ids=["now", "older"])
def test_the_onnx_layout_finds_the_same(
    vad_dir: Path, tmp_path: Path, speech_with_gaps, names: dict[str, str]
) -> None:
    directory = onnx_layout(vad_dir, tmp_path, names)
    if "vad.yaml" in names.values():
        path = directory / "vad.yaml"
        path.write_text(path.read_text().replace("\nmodel_conf:", "\nvad_post_conf:"))
    expected = spans(FsmnVad.load(vad_dir), speech_with_gaps, 160_000)
    assert len(expected) >= 4
    assert spans(FsmnVad.load(directory), speech_with_gaps, 160_000) == expected


def test_the_export_holds_the_checkpoints_numbers(vad_dir: Path) -> None:
    exported = onnx_weights(vad_dir / "model.onnx", 4)
    trained = read_checkpoint(vad_dir / "model.pt").tensors
    assert exported.keys() == trained.keys()
    assert all(np.array_equal(exported[name], trained[name]) for name in trained)


@pytest.fixture(scope="session")
def quantised_vad(vad_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As FunASR makes model_quant.onnx."""
    pytest.importorskip("onnx")
    quantization = pytest.importorskip("onnxruntime.quantization")
    directory = onnx_layout(vad_dir, tmp_path_factory.mktemp("vad"), ONNX)
    whole = directory / "model.onnx"
    quantization.quantize_dynamic(
        whole, directory / "model_quant.onnx", op_types_to_quantize=["MatMul"], per_channel=True,
        weight_type=quantization.QuantType.QUInt8,
    )  # fmt: skip
    whole.unlink()
    return directory


@pytest.mark.filterwarnings("default")
def test_the_quantised_file_alone_does(quantised_vad: Path, vad_dir: Path, speech_with_gaps):
    exact = onnx_weights(vad_dir / "model.onnx", 4)
    rounded = onnx_weights(quantised_vad / "model_quant.onnx", 4)
    for name, matrix in exact.items():
        # A step is a 255th of what a row spans, zero included; rounding errs by half of one.
        axis = tuple(range(1, matrix.ndim))
        span = np.maximum(matrix.max(axis), 0) - np.minimum(matrix.min(axis), 0)
        error = np.abs(rounded[name] - matrix).max(axis)
        assert (error <= (0.51 / 255) * span).all(), name
        assert name.endswith("linear.weight") or not error.any()
    ours = spans(FsmnVad.load(quantised_vad), speech_with_gaps, 160_000)
    expected = spans(FsmnVad.load(vad_dir), speech_with_gaps, 160_000)
    assert len(ours) == len(expected)
    assert np.abs(np.array(ours) - expected).max() <= 50  # ms


@pytest.mark.filterwarnings("default")
def test_the_reader_agrees_with_the_onnx_package(quantised_vad: Path, vad_dir: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for path in (vad_dir / "model.onnx", quantised_vad / "model_quant.onnx"):
        ours, theirs = read_onnx(path), onnx.load(path).graph
        assert [op.type for op in ours.operators] == [node.op_type for node in theirs.node]
        assert [op.inputs for op in ours.operators] == [tuple(node.input) for node in theirs.node]
        assert len(ours.tensors) == len(theirs.initializer)
        for tensor in theirs.initializer:
            assert np.array_equal(ours.tensors[tensor.name], onnx.numpy_helper.to_array(tensor))


def test_damaged_onnx_files_end_in_one_kind_of_error(vad_dir: Path, tmp_path: Path) -> None:
    directory = onnx_layout(vad_dir, tmp_path, ONNX)
    path = directory / "model.onnx"
    whole = path.read_bytes()
    for content in (b"", b"version https://git-lfs", whole[: len(whole) // 2], b"\x00" * 4096):
        path.write_bytes(content)
        with pytest.raises(VerificationError, match=r"model\.onnx"):
            FsmnVad.load(directory)
    rng = np.random.default_rng(5)
    # The graph stands before the weights and in their heads; there a byte counts most.
    heads = [at for n in range(12) if (at := whole.find(b"onnx::MatMul", n * 20_000)) >= 0]
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for at in (int(rng.integers(0, 6000)), int(rng.choice(heads)) - int(rng.integers(-14, 14))):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            FsmnVad.load(directory)
        except VerificationError:
            refused += 1
    assert refused > 20


def test_another_network_is_refused(vad_dir: Path, tmp_path: Path) -> None:
    directory = onnx_layout(vad_dir, tmp_path, ONNX)
    config = (directory / "config.yaml").read_text()
    (directory / "config.yaml").write_text(config.replace("fsmn_layers: 4", "fsmn_layers: 5"))
    with pytest.raises(VerificationError, match=r"12 tensors for linear\.weight, 14 expected"):
        FsmnVad.load(directory)
    (directory / "config.yaml").write_text(config.replace("lorder: 20", "lorder: 10"))
    with pytest.raises(VerificationError, match="20 taps, 10 expected"):
        FsmnVad.load(directory)
    (directory / "config.yaml").write_text(config.replace("input_dim: 400", "input_dim: 80"))
    with pytest.raises(UnsupportedError, match="input_dim is 80"):
        FsmnVad.load(directory)


def test_weights_in_another_file_are_refused(vad_dir: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    directory = onnx_layout(vad_dir, tmp_path, ONNX)
    onnx.save(
        onnx.load(directory / "model.onnx"), directory / "model.onnx",
        save_as_external_data=True, size_threshold=1,
    )  # fmt: skip
    with pytest.raises(VerificationError, match="is kept in another file"):
        FsmnVad.load(directory)

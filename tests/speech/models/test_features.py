"""The filter bank against Kaldi's own, and the files that go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from yibu.errors import VerificationError  # noqa: E402
from yibu.speech.features import Normalizer, fbank, frame_count, stack_frames  # noqa: E402


def kaldi(samples):
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    options.energy_floor = 0
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, samples * 32768)
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


@pytest.mark.parametrize("seconds", [0.025, 0.5, 31.0])
def test_it_is_kaldis(seconds: float) -> None:
    noise = np.random.default_rng(1).standard_normal(int(seconds * 16000)).astype(np.float32) / 10
    ours, theirs = fbank(noise), kaldi(noise)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 2e-3
    assert np.abs(ours - theirs).mean() < 2e-5


def test_it_is_kaldis_on_speech(clips) -> None:
    for clip in clips:
        assert np.abs(fbank(clip.samples) - kaldi(clip.samples)).max() < 5e-3


def test_digital_silence_and_too_few_samples() -> None:
    assert np.isfinite(fbank(np.zeros(1600, np.float32))).all()
    assert fbank(np.zeros(399, np.float32)).shape == (0, 80)
    assert frame_count(400) == 1


def test_stacking_repeats_the_ends() -> None:
    frames = np.repeat(np.arange(9, dtype=np.float32)[:, None], 80, axis=1)
    stacked = stack_frames(frames, 7, 6)
    assert stacked.shape == (2, 560)
    assert stacked[0, ::80].tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert stacked[1, ::80].tolist() == [3, 4, 5, 6, 7, 8, 8]
    assert stack_frames(frames[:0], 7, 6).shape == (0, 560)


@pytest.mark.parametrize("text", ["", "<AddShift> 2 2 <LearnRateCoef> 0 [ 1 2 ]", "\x00\x01"])
def test_a_damaged_mvn_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "am.mvn"
    path.write_text(text)
    with pytest.raises(VerificationError, match=r"am\.mvn"):
        Normalizer.read(path, 560)


def test_another_models_mvn_is_refused(sensevoice_dir: Path) -> None:
    with pytest.raises(VerificationError, match="560 values; 400 expected"):
        Normalizer.read(sensevoice_dir / "am.mvn", 400)

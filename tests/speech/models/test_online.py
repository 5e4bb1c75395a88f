"""Paraformer for live speech against FunASR's, chunk by chunk."""

from __future__ import annotations

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")

from yibu.errors import UnsupportedError, UsageError, VerificationError  # noqa: E402
from yibu.speech.loading import load  # noqa: E402
from yibu.speech.models.paraformer_online import Chunking, OnlineParaformer  # noqa: E402
from yibu.speech.settings import SpeechSettings  # noqa: E402
from yibu.speech.types import RecognitionOptions, Segment  # noqa: E402

from . import random_models  # noqa: E402

STRIDE = 9_600


@pytest.fixture(scope="module")
def model(funasr_dir: Path) -> OnlineParaformer:
    return OnlineParaformer.load(funasr_dir / "online", precision="fp32", threads=1)


def heard(
    model: OnlineParaformer, sound: np.ndarray, chunking: Chunking | None = None
) -> list[str]:
    session = model.session(chunking)
    return [
        session.text(session.feed(sound[at : at + STRIDE], final=at + STRIDE >= len(sound)))
        for at in range(0, len(sound), STRIDE)
    ]


def test_each_chunk_says_what_funasr_said(model, expected) -> None:
    answers = expected["online"]
    for sound, answer in zip(random_models.noises(len(answers), 7), answers, strict=True):
        assert heard(model, sound) == answer["texts"]


def test_each_chunk_says_what_funasr_says(tmp_path: Path) -> None:
    pytest.importorskip("funasr")
    for seed, look_back in ((1, 4), (2, 1), (3, 0)):
        directory = random_models.write("online", tmp_path / str(seed), seed)
        ours = OnlineParaformer.load(directory, precision="fp32", threads=1)
        theirs = random_models.automodel(directory)
        chunking = Chunking(encoder_look_back=look_back)
        for sound in [*random_models.noises(3, seed), np.zeros(2 * STRIDE, np.float32)]:
            assert heard(ours, sound, chunking) == random_models.online(theirs, sound, look_back)


def test_how_the_sound_is_cut_changes_nothing(model) -> None:
    rng = np.random.default_rng(2)
    one, other = model.session(), model.session()
    for sound in random_models.noises(3, 4):
        whole = one.feed(sound, final=True)
        tokens: list[str] = []
        at = 0
        while at < len(sound):
            step = int(rng.integers(1, 12_000))
            tokens += other.feed(sound[at : at + step])
            one.feed(np.zeros(0, np.float32))
            at += step
        assert tokens + other.feed(np.zeros(0, np.float32), final=True) == whole
        assert whole


def test_sessions_do_not_hear_one_another(model) -> None:
    sounds = [np.resize(sound, 5 * STRIDE) for sound in random_models.noises(3, 6)]
    alone = [heard(model, sound) for sound in sounds]
    sessions = [model.session() for _ in sounds]
    together: list[list[str]] = [[] for _ in sounds]
    for n in range(5):
        for session, sound, texts in zip(sessions, sounds, together, strict=True):
            chunk = sound[n * STRIDE : (n + 1) * STRIDE]
            texts.append(session.text(session.feed(chunk, final=n == 4)))
    assert together == alone


def test_what_a_session_keeps_does_not_grow(model) -> None:
    session = model.session()
    (sound,) = random_models.noises(1, 9)
    sizes = []
    for _ in range(40):
        session.feed(np.resize(sound, STRIDE))
        sizes.append(sum(part.nbytes for part in vars(session).values() if hasattr(part, "nbytes")))
    assert sizes[5] == sizes[-1] < 100_000


def test_files_are_heard_as_live_speech_is(funasr_dir: Path, vad_dir: Path, model) -> None:
    loaded = load(SpeechSettings(funasr_dir / "online", vad=vad_dir, precision="fp32"))
    sounds = random_models.noises(3, 12)
    segments = [Segment(1.0, sound) for sound in [*sounds, np.zeros(100, np.float32)]]
    answers = loaded.recognizer.recognize(segments, [RecognitionOptions(words=True)] * 4)
    session = model.session()
    for sound, answer in zip(sounds, answers, strict=False):
        assert answer.text == session.text(session.feed(sound, final=True))
        assert answer.words == ()
    samples = np.resize(sounds[0], 32_000)
    finder = loaded.segmenter.session()
    assert all(len(s.samples) for s in finder.feed(samples) + finder.finish())


def test_what_is_not_built_is_refused(funasr_dir: Path, vad_dir: Path, tmp_path: Path) -> None:
    def changed(old: str, new: str) -> Path:
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        for file in (funasr_dir / "online").iterdir():
            (directory / file.name).symlink_to(file)
        config = (directory / "config.yaml").read_text("utf-8")
        assert old in config
        (directory / "config.yaml").unlink()
        (directory / "config.yaml").write_text(config.replace(old, new, 1), "utf-8")
        return directory

    with pytest.raises(UnsupportedError, match="class 'Paraformer', ParaformerStreaming expected"):
        OnlineParaformer.load(funasr_dir / "paraformer", precision="fp32", threads=1)
    with pytest.raises(UnsupportedError, match="hears 5 tokens ahead"):
        OnlineParaformer.load(
            changed("sanm_shfit: 5", "sanm_shfit: 0"), precision="fp32", threads=1
        )
    with pytest.raises(VerificationError, match="not of one model"):
        OnlineParaformer.load(
            changed("num_blocks: 3", "num_blocks: 4"), precision="fp32", threads=1
        )
    with pytest.raises(UsageError, match="hears live speech"):
        load(SpeechSettings(funasr_dir / "online", vad=vad_dir, precision="fp32", path="reference"))

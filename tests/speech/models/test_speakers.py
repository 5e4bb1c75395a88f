"""CAM++ and the clustering of its vectors against FunASR's, and the stages that use them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")

from yibu.errors import UnsupportedError, UsageError, VerificationError  # noqa: E402
from yibu.speech.loading import load  # noqa: E402
from yibu.speech.models.campplus import SpeakerNetwork, windows  # noqa: E402
from yibu.speech.models.punctuation import Punctuator, split_words  # noqa: E402
from yibu.speech.models.speakers import (  # noqa: E402
    clustered,
    in_order,
    smoothed,
    speaker_of,
    turns,
)
from yibu.speech.settings import SpeechSettings  # noqa: E402
from yibu.speech.stages import PunctuationStage, SpeakerStage  # noqa: E402
from yibu.speech.types import RecognitionOptions, Recognized, Segment, Voice, Word  # noqa: E402

from . import random_models  # noqa: E402


@pytest.fixture(scope="module")
def network(funasr_dir: Path) -> SpeakerNetwork:
    return SpeakerNetwork.load(funasr_dir / "speakers", threads=1)


def test_vectors_are_what_funasr_computed(network, expected) -> None:
    answers = expected["speakers"]
    for sound, answer in zip(random_models.noises(len(answers), 7), answers, strict=True):
        vector = network.vectors([sound])[0]
        assert np.allclose(vector, answer["vector"], atol=1e-3)
        assert np.abs(vector).max() > 50  # or the tolerance would be none


def test_vectors_are_what_funasr_computes(tmp_path: Path) -> None:
    pytest.importorskip("funasr")
    for seed in (1, 2):
        directory = random_models.write("speakers", tmp_path / str(seed), seed)
        ours = SpeakerNetwork.load(directory, threads=1)
        answers = random_models.answers("speakers", directory, seed, 4)
        for sound, answer in zip(random_models.noises(4, seed), answers, strict=True):
            theirs = np.array(answer["vector"])
            gap = np.abs(ours.vectors([sound])[0] - theirs).max()
            assert gap <= 1e-4 * np.abs(theirs).max()


def test_a_batch_changes_no_vector(network) -> None:
    sounds = [np.resize(sound, 24_000) for sound in random_models.noises(5, 3)]
    together = network.vectors(sounds)
    for sound, vector in zip(sounds, together, strict=True):
        assert np.allclose(network.vectors([sound])[0], vector, atol=1e-4)


def recording(seed: int) -> tuple[list[Voice], np.ndarray]:
    """Windows of some speakers, in stretches with pauses, and who speaks in each."""
    rng = np.random.default_rng(seed)
    speakers, count = int(rng.integers(1, 6)), int(rng.integers(10, 300))
    centres = rng.standard_normal((speakers, 192))
    truth = np.repeat(rng.integers(0, speakers, count // 5 + 1), 5)[:count]
    noise = float(rng.choice([0.3, 0.6, 1.0])) * rng.standard_normal((count, 192))
    vectors = (centres[truth] + noise).astype(np.float32)
    voices: list[Voice] = []
    start = 0.0
    while len(voices) < count:
        for _ in range(min(int(rng.integers(1, 12)), count - len(voices))):
            voices.append(Voice(start, start + 1.5, vectors[len(voices)]))
            start += 0.75
        start += 0.75 + float(rng.choice([0.0, 0.4, 2.0]))
    return voices, truth


def same_groups(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def test_speakers_are_found() -> None:
    for seed in range(20):
        voices, truth = recording(seed)
        if len(voices) >= 20:
            assert same_groups(clustered(np.stack([v.vector for v in voices])), truth)
    assert turns([]) == []
    assert {turn.speaker for turn in turns(recording(0)[0][:19])} == {0}  # as in FunASR


def test_clusters_and_turns_are_funasrs() -> None:
    backend = pytest.importorskip("funasr.models.campplus.cluster_backend").ClusterBackend()
    utils = pytest.importorskip("funasr.models.campplus.utils")
    for seed in range(30):
        np.random.seed(seed)
        voices, _ = recording(seed)
        vectors = np.stack([voice.vector for voice in voices])
        labels = clustered(vectors.copy())
        assert same_groups(backend(vectors.copy()), labels)
        chunks = [[voice.start, voice.end, None] for voice in voices]
        theirs = utils.postprocess(chunks, None, labels.copy(), vectors)
        mine = smoothed(voices, in_order(labels))
        assert [[t.start, t.end, t.speaker] for t in mine] == [
            [*map(float, t[:2]), t[2]] for t in theirs
        ]
        rng = np.random.default_rng(seed)
        spans = [
            (float(start), float(start + length))
            for start, length in zip(rng.uniform(0, 100, 40), rng.uniform(0.2, 6, 40), strict=True)
        ]
        told = utils.distribute_spk(
            [{"start": a * 1000, "end": b * 1000} for a, b in spans], theirs
        )
        assert [speaker_of(a, b, mine) for a, b in spans] == [sentence["spk"] for sentence in told]


def test_windows_are_funasrs() -> None:
    cut = pytest.importorskip("funasr.models.campplus.utils").sv_chunk
    for samples in (100, 11_999, 12_000, 24_000, 24_001, 36_001, 164_800):
        theirs = cut([[0.0, samples / 16_000, np.zeros(samples, np.float32)]])
        mine = [(start / 16_000, min(end, samples) / 16_000) for start, end in windows(samples)]
        assert [(start, end) for start, end, _ in theirs] == mine


def test_a_long_recording_is_clustered_too() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 3, 500), 9)
    centres = rng.standard_normal((3, 64))
    vectors = (centres[truth] + 0.5 * rng.standard_normal((4500, 64))).astype(np.float32)
    labels = clustered(vectors)
    edges = np.flatnonzero(np.diff(truth))
    inside = ~np.isin(np.arange(4500), np.concatenate([edges + n for n in (-1, 0, 1, 2)]))
    assert same_groups(labels[inside], truth[inside])


def word(text: str, start: float) -> Word:
    return Word(text, start, start + 0.5)


def test_a_segment_is_cut_where_the_speaker_changes() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2, 32)).astype(np.float32)
    voices = [
        Voice(n * 0.75, n * 0.75 + 1.5, centres[int(n >= 20)] + rng.normal(0, 0.1, 32))
        for n in range(40)
    ]
    spoken = Recognized(
        "你好，hello there. 再见。", 13.0, 18.0, raw="x", tokens=(1, 2), voices=tuple(voices),
        words=(word("你", 13.0), word("好，", 13.5), word("hello", 15.5), word("there.", 16.0),
               word("再", 17.0), word("见。", 17.4)),
    )  # fmt: skip
    silent = Recognized("", 20.0, 21.0)
    whole = Recognized("ok", 25.0, 29.0)
    stage = SpeakerStage()
    assert stage.feed([spoken]) == []
    assert stage.feed([silent, whole]) == []
    first, second, third, last = stage.finish()
    assert (first.text, first.speaker, first.start, first.end) == ("你好，", "A", 13.0, 14.0)
    assert (second.text, second.speaker, second.start) == ("hello there. 再见。", "B", 15.5)
    assert [w.text for w in second.words] == ["hello", "there.", "再", "见。"]
    assert third.text == ""
    assert (last.text, last.speaker, last.words) == ("ok", "B", ())
    assert first.voices == last.voices == ()


def test_segments_get_their_punctuation_in_order(funasr_dir: Path) -> None:
    punctuator = Punctuator.load(funasr_dir / "punctuation", threads=1)
    texts = random_models.texts(12, 11)
    segments = [Recognized(text, n, n + 1.0, raw=text) for n, text in enumerate(texts)]
    segments.insert(3, Recognized("", 2.5, 2.6))
    words = split_words(texts[0])
    timed = tuple(Word(text, n / 10, n / 10 + 0.1) for n, text in enumerate(words))
    segments[0] = replace(segments[0], words=timed)
    stage = PunctuationStage(punctuator)
    released = [result for segment in segments for result in stage.feed([segment])]
    assert len(released) >= 8
    released += stage.finish()
    assert [r.start for r in released] == [s.start for s in segments]
    whole = punctuator.text(" ".join(texts))
    assert "".join(r.text for r in released).replace(" ", "") == whole.replace(" ", "")
    assert len(released[0].words) == len(words)
    marked = "".join(w.text for w in released[0].words)
    assert marked == released[0].text.replace(" ", "")


def test_wrong_directories_and_paths_are_refused(
    funasr_dir, vad_dir, sensevoice_dir, tmp_path
) -> None:
    def attempt(model: Path, **more: Any) -> None:
        load(SpeechSettings(model, vad=vad_dir, precision="fp32", **more))

    with pytest.raises(UnsupportedError, match="class 'Paraformer', CAMPPlus expected"):
        SpeakerNetwork.load(funasr_dir / "paraformer", threads=1)
    (tmp_path / "config.yaml").write_text("model: CAMPPlus\n")
    with pytest.raises(VerificationError, match=r"model\.pt is missing"):
        SpeakerNetwork.load(tmp_path, threads=1)
    with pytest.raises(UsageError, match="takes no punctuation model"):
        attempt(sensevoice_dir, punctuation=funasr_dir / "punctuation")
    with pytest.raises(
        UnsupportedError, match="reference path on cpu does not tell speakers apart"
    ):
        attempt(sensevoice_dir, path="reference", speakers=funasr_dir / "speakers")


def test_a_recognizer_says_how_voices_sound(funasr_dir, vad_dir, sensevoice_dir, network) -> None:
    speakers = funasr_dir / "speakers"
    loaded = load(SpeechSettings(sensevoice_dir, vad=vad_dir, precision="fp32", speakers=speakers))
    (sound,) = random_models.noises(1, 2)
    asked = [RecognitionOptions(speakers=True), RecognitionOptions()]
    first, second = loaded.recognizer.recognize([Segment(3.0, sound)] * 2, asked)
    assert second.voices == ()
    assert (first.voices[0].start, first.voices[0].end) == (3.0, 4.5)
    assert np.allclose(first.voices[0].vector, network.vectors([sound[:24_000]])[0], atol=1e-4)
    assert loaded.finishing is not None
    assert len(loaded.finishing.stages(RecognitionOptions(speakers=True))) == 1
    assert loaded.finishing.stages(RecognitionOptions()) == []

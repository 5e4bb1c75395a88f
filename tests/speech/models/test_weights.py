"""Checkpoints are read without running them."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from yibu.errors import VerificationError  # noqa: E402
from yibu.speech.checkpoints.pytorch import read_checkpoint  # noqa: E402


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.path}",)


def checkpoint(path: Path, content: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(content, protocol=2))
    return path


def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = checkpoint(tmp_path / "model.pt", {"weight": Exploit(witness)})
    with pytest.raises(VerificationError, match=r"refused: it names posix\.system"):
        read_checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize("content", [[1, 2], "text", 7])
def test_anything_but_a_dictionary_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(VerificationError, match="a dictionary of tensors expected"):
        read_checkpoint(checkpoint(tmp_path / "model.pt", content))


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    """What torch.save wrote before 1.6: pickles one after the other, the tensors at the end."""
    witness = tmp_path / "witness"
    path = tmp_path / "model.pt"
    with path.open("wb") as file:
        for content in (0x1950A86A20F9469CFC6C, 1001, {}, {"weight": Exploit(witness)}):
            pickle.dump(content, file, protocol=2)
    with pytest.raises(VerificationError, match=r"saved by PyTorch before 1\.6"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Exploit(witness)))
    with pytest.raises(VerificationError, match="no readable PyTorch checkpoint"):
        read_checkpoint(path)
    assert not witness.exists()


def test_what_is_said_to_type_for_a_bare_pickle_works(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "it's old.pt"
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    torch.save({"weight": tensor}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(VerificationError) as refused:
        read_checkpoint(path)
    command = str(refused.value.hint).partition(": ")[2]
    typed = command.replace("$(yibu engine install speech-torch)", shlex.quote(sys.executable))
    subprocess.run(typed, shell=True, check=True, timeout=300)
    assert np.array_equal(read_checkpoint(path).tensors["weight"], tensor.numpy())


def test_missing_cut_and_foreign_files_are_named(tmp_path: Path, sensevoice_dir: Path) -> None:
    whole = (sensevoice_dir / "model.pt").read_bytes()
    path = tmp_path / "model.pt"
    with pytest.raises(VerificationError, match="is missing"):
        read_checkpoint(path)
    for content in (b"", b"version https://git-lfs", whole[: len(whole) // 2], whole[1000:]):
        path.write_bytes(content)
        with pytest.raises(VerificationError, match=r"model\.pt"):
            read_checkpoint(path)


def test_damaged_descriptions_never_end_in_another_error(tmp_path: Path, vad_dir: Path) -> None:
    """Bytes of the description are changed at random; tensors come out or a clear refusal."""
    with zipfile.ZipFile(vad_dir / "model.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    rng = np.random.default_rng(3)
    for round_number in range(200):
        damaged = bytearray(entries[name])
        for position in rng.integers(0, len(damaged), 1 + round_number % 4):
            damaged[position] = rng.integers(0, 256)
        path = tmp_path / "model.pt"
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in entries.items():
                archive.writestr(entry, bytes(damaged) if entry == name else content)
        # Some damage leaves tensors behind; whatever does not is one kind of error.
        with contextlib.suppress(VerificationError):
            read_checkpoint(path)


def test_it_reads_what_torch_reads(sensevoice_dir: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    expected = torch.load(sensevoice_dir / "model.pt", weights_only=True)
    found = read_checkpoint(sensevoice_dir / "model.pt").tensors
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name].numpy()) for name in found)
    tensor = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    kinds = {
        "turned": tensor.T,
        "part": tensor[1:3, ::2],
        "bf16": tensor.bfloat16(),
        "half": tensor.half(),
        "long": tensor.long(),
        "parameter": torch.nn.Parameter(tensor),
        "scalar": torch.tensor(3.0),
    }
    buffer = io.BytesIO()
    torch.save({"state_dict": kinds}, buffer)
    path = tmp_path / "kinds.pt"
    path.write_bytes(buffer.getvalue())
    found = read_checkpoint(path).tensors
    for name, value in kinds.items():
        assert np.array_equal(found[name], value.detach().float().numpy()), name

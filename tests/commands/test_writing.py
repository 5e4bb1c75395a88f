"""What verbs write: whole, or nothing of it and a message with the file's name and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_disks import with_disks

VERBS = {
    "yibu.yaml": ["init"],
    "report.tar.gz": ["support", "--offline", "-n", "0", "-o", "report.tar.gz"],
    "adopted.yaml": ["adopt", "-o", "adopted.yaml", "--", "vllm", "serve", "./weights"],
}


def run(
    home: Path, work: Path, words: list[str], before: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run a verb in a directory, and list what is there afterwards."""
    listed = f'"$@" || echo "exit $?"; ls -A "{work}"'
    return subprocess.run(
        [*before, "sh", "-c", f'cd "{work}" && {listed}', "sh", sys.executable, "-m", "yibu", *words],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "YIBU_HOME": str(home), "LANG": "C.UTF-8"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("file", VERBS)
def test_a_full_disk(tmp_path: Path, file: str) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    done = run(home, work, VERBS[file], with_disks({work: "64k, full"}))
    assert f"{file}: No space left on device." in done.stderr
    assert "df -h" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-2:] == ["exit 1", "filler"]


def test_a_missing_directory_is_found_before_the_work(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for words in (
        ["support", "-o", f"{nowhere}/report.tar.gz"],
        ["bench", "nothing", "-o", f"{nowhere}/charts.svg"],
        ["init", f"{nowhere}/yibu.yaml"],
    ):
        done = run(tmp_path, tmp_path, words, [])
        assert f"There is no directory {nowhere}." in done.stderr
        assert f"mkdir -p {nowhere}" in done.stderr
        assert "exit 2" in done.stdout


def test_a_file_of_another_name_is_named_to_up(tmp_path: Path) -> None:
    assert "yibu up -f other.yaml" in run(tmp_path, tmp_path, ["init", "other.yaml"], []).stderr


def test_names_that_are_not_here(tmp_path: Path) -> None:
    for words in (["rm", "nothing"], ["verify", "nothing"], ["show", "nothing"]):
        done = run(tmp_path, tmp_path, words, [])
        assert "There is no model 'nothing' on this disk" in done.stderr
        assert "yibu ls" in done.stderr
    done = run(tmp_path, tmp_path, ["pull", "nothing"], [])
    assert "`yibu search` lists models by name" in done.stderr


def test_nothing_is_said_to_be_done_that_was_not(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path, ["engine", "rm", "llama.cpp"], [])
    assert done.stderr == "There is no environment llama.cpp here; nothing was removed.\n"
    assert "Fetch one: yibu pull" in run(tmp_path, tmp_path, ["ls"], []).stderr
    assert run(tmp_path, tmp_path, ["ls", "--json"], []).stderr == ""
    assert "Add one: yibu key add" in run(tmp_path, tmp_path, ["key", "ls"], []).stderr

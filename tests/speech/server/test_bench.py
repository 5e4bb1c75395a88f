"""Comparing precisions: the counting, and whisper-base itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("numpy", reason="run with a speech environment's Python")

from hypothesis import given
from hypothesis import strategies as st

from tests.speech.server.conftest import REPOSITORY, SHARED
from tests.speech.server.whisper import whisper_directory
from yibu.speech.bench import changed_characters, differences


def test_a_difference_is_shown_with_what_stands_around_it() -> None:
    [found] = differences("a.wav", "ask not what your country", "ask not who your country")
    assert (found.before, found.after) == ("at", "o")
    assert found.context == "k not what your co"
    assert changed_characters([found]) == 2


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("", "", 0),
        ("same", "same", 0),
        ("欢迎大家", "欢迎大伙", 1),
        ("abc", "abcde", 2),
        ("abcde", "abc", 2),
        ("", "four", 4),
    ],
)
def test_counting(before: str, after: str, changed: int) -> None:
    assert changed_characters(differences("f", before, after)) == changed


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_count_is_no_less_than_the_difference_in_length(one: str, other: str) -> None:
    changed = changed_characters(differences("f", one, other))
    assert abs(len(one) - len(other)) <= changed <= max(len(one) + len(other), 0)
    assert (changed == 0) == (one == other)


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_precisions_of_whisper() -> None:
    pytest.importorskip("faster_whisper", reason="run with the environment for whisper")
    clip = SHARED / "clips" / "sb_spk1_snt1.wav"
    if not clip.is_file():
        pytest.skip("the clips are not at ../shared/clips")
    command = [
        sys.executable,
        "-m",
        "yibu.speech.bench",
        "--json",
        "--precisions",
        "fp32,bf17,int8",
    ]
    ended = subprocess.run(
        [*command, "--model", str(whisper_directory()), str(clip)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ.copy(),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "bf17" in ended.stderr
    exact, quick = map(json.loads, ended.stdout.splitlines())
    assert (exact["precision"], exact["changed_characters"]) == ("fp32", 0)
    assert (quick["precision"], quick["compared_with"]) == ("int8", "fp32")
    assert "small dog" in quick["texts"][0].lower()
    assert quick["speed"] > 0
    assert quick["resident"] < exact["resident"]

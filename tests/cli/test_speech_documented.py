"""docs/speech.md against the engine's own command line and form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from yibu.gateway.operations import OPERATIONS
from yibu.gateway.surface.openapi import _request
from yibu.speech.answers.languages import normalized
from yibu.speech.program import _parser

PAGE = (Path(__file__).parents[2] / "docs" / "speech.md").read_text("utf-8")


def test_every_limit_is_documented_with_its_default() -> None:
    [limits] = [group for group in _parser()._action_groups if group.title == "limits"]
    documented: dict[str, float] = {}
    for names, defaults in re.findall(r"^\| (`[a-z_`, ]+`) \| ([\d, ]+) \|", PAGE, re.MULTILINE):
        documented |= zip(re.findall(r"\w+", names), map(float, defaults.split(", ")), strict=True)
    flags = {action.option_strings[0]: float(action.default) for action in limits._group_actions}
    assert documented == {flag[2:].replace("-", "_"): default for flag, default in flags.items()}


def test_the_languages_are_the_models() -> None:
    known = frozenset({"auto", "zh", "en", "yue", "ja", "ko", "nospeech"})
    [row] = re.findall(r"SenseVoice: (.*?); whisper", PAGE)
    assert set(re.findall(r"`(\w+)`", row)) == known
    [aliases] = re.findall(r"its codes\. (.*) are `zh`", PAGE)
    assert {normalized(name, known) for name in re.findall(r"`([\w-]+)`", aliases)} == {"zh"}


def test_the_gateway_describes_the_same_fields() -> None:
    table = PAGE.partition("| field |")[2].partition("\n\n")[0]
    cells = (line.split("|")[1] for line in table.splitlines()[2:])
    documented = {name for cell in cells for name in re.findall(r"`([\w\[\]]+)`", cell)}
    form = _request(OPERATIONS["/v1/audio/transcriptions"])["multipart/form-data"]
    assert documented - {"audio"} == set(form["schema"]["properties"])


def test_by_hand_it_speaks_the_language_of_the_environment() -> None:
    env = {
        **os.environ,
        "LC_ALL": "zh_CN.UTF-8",
        "YIBU_LANG": "",
        "PYTHONUTF8": "1",
        "COLUMNS": "300",
    }
    command = [sys.executable, "-m", "yibu.speech"]
    told = subprocess.run([*command, "--help"], env=env, capture_output=True, text=True, check=True)
    _, _, rest = told.stdout.partition("\n\n")
    lines = [text for text in rest.splitlines() if not re.fullmatch(r"( +--[\w-]+ \S+)?", text)]
    assert len(lines) > 20
    for line in lines:
        assert re.search("[\u4e00-\u9fff]", line), line
    refused = subprocess.run([*command, "--port", "x"], env=env, capture_output=True, text=True, check=False)  # fmt: skip
    assert "错误：参数 --port：'x' 不是端口号" in refused.stderr
    assert refused.returncode == 2

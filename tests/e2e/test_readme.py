"""The README's commands do what it says: blocks marked as tested are run as they stand."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys

import pytest
import yaml

from tests.e2e.home import REPOSITORY, Home
from yibu.config import file as config_file

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CHINESE = (REPOSITORY / "README.zh-CN.md").read_text(encoding="utf-8")
TESTED = re.findall(r"<!-- tested -->\n```sh\n(.*?)```", README, re.DOTALL)


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", TESTED, ids=[block.splitlines()[0] for block in TESTED])
def test_its_commands_run(block: str, engine_home: Home) -> None:
    command = engine_home.root / "bin" / "yibu"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable} -P\nfrom yibu.cli.main import main\nmain()\n", encoding="utf-8"
    )
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=REPOSITORY,
        # The port of the README's examples may be taken on a machine that runs tests.
        env={**engine_home.env, "PATH": path, "YIBU_PORT": "0"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not engine_home.processes()


def test_some_blocks_are_tested() -> None:
    assert len(TESTED) >= 2


def test_its_file_can_be_used() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    schema = config_file.parse(block.encode(), "README", env={"MY_KEY": "a-key-of-mine"})
    assert [model.name for model in schema.models] == ["smol", "mine"]
    assert yaml.safe_load(block)["gateway"]["port"] == 8000


def test_its_documents_are_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README + CHINESE):
        assert (REPOSITORY / target).is_file(), target


def test_the_make_targets_that_it_names_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)", README + CHINESE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

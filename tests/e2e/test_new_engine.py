"""An engine is one folder: a new one takes a folder, a lock file and a row, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import yibu
from tests.e2e.home import FAKE_ENGINE, Home
from tests.environments.tiny_wheels import build_wheel, locked
from tests.planner.planner_files import LLAMA, gguf_bytes

ENGINE = '''
"""A server of one's own, as an engine."""

from yibu.engines.base import Engine, LaunchPlan
from yibu.engines.requests import RequestTable, passed
from yibu.planner.request import Request


class Tiny(Engine):
    name = "tiny"
    formats = frozenset({"gguf"})
    serves = "GGUF files"
    requests = RequestTable({"*": passed("**")})

    def check(self, model):
        """Its options are its server's flags."""

    def request(self, model, facts):
        return Request(model.name, "unmanaged", facts, parallel=2)

    def plan(self, model, facts, placement):
        facts = self.served(model, facts)
        words = [f"--{name}={value}" for name, value in model.options.items()]
        return LaunchPlan(
            self.name,
            ("{python}", "-P", "-m", "tiny_server", "--host", "{host}", "--port", "{port}",
             "--model-name", model.name, *words),
            dict(model.env),
            frozenset({"chat"}),
            environment=self.environment(model, facts, gpu=False),
            key_variable="FAKE_API_KEY",
            notes=("started by the folder",),
        )


ENGINE = Tiny
'''
ENVIRONMENTS = '[tiny]\npackage = "tiny-server"\ndisk = "1MiB"\n'
LOG = "[[cause]]\nkey = 'tiny'\npattern = 'tiny is broken'\nexplanation = 'Tiny broke.'\nhint = 'Repair it.'\n"
PACKAGE = Path(yibu.__file__).parent


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    files = {"tiny_server.py": FAKE_ENGINE.read_bytes()}
    return build_wheel(tmp_path / "wheels", "tiny_server", "1.0", files)


@pytest.fixture
def source(tmp_path: Path, wheel: Path) -> Path:
    """yibu's package as it is, but for the folder, the lock file and the row."""
    root = tmp_path / "source"
    changed = {PACKAGE, *(PACKAGE / name for name in ("config", "engines", "environments"))}
    changed.add(PACKAGE / "environments" / "locks")
    for folder in sorted(changed):
        copy = root / "yibu" / folder.relative_to(PACKAGE)
        copy.mkdir(parents=True)
        for path in folder.iterdir():
            if path not in changed and path.name != "__pycache__":
                (copy / path.name).symlink_to(path)
    package = root / "yibu"
    folder = package / "engines" / "tiny"
    folder.mkdir()
    (folder / "__init__.py").write_text(ENGINE)
    (folder / "environments.toml").write_text(ENVIRONMENTS)
    (folder / "log.toml").write_text(LOG)
    locks = package / "environments" / "locks"
    (locks / "tiny.in").write_text("tiny-server\n")
    (locks / "tiny.txt").write_text(locked(wheel, "tiny-server", "1.0"))
    registry = package / "config" / "engines.py"
    text = registry.read_text()
    registry.unlink()
    registry.write_text(text.replace('    "command",\n', '    "tiny",\n    "command",\n'))
    return root


@pytest.fixture
def home(tmp_path: Path, source: Path) -> Iterator[Home]:
    settings = {
        "PYTHONPATH": str(source),
        "UV_OFFLINE": "1",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "PIP_CONFIG_FILE": "/dev/null",
    }
    root = tmp_path / "home"
    root.mkdir()
    with Home(root, settings=settings, through=("env",)) as home:
        yield home


@pytest.mark.timeout(600)
def test_a_folder_a_lock_file_and_a_row(home: Home, tmp_path: Path, wheel: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(gguf_bytes(LLAMA, [("w", (1000,), 0, 0)]) + bytes(4096))
    home.write([{"name": "t", "engine": "tiny", "source": str(model), "options": {"tokens": 3}}])

    home.yibu("config", "check")
    (planned,) = json.loads(home.yibu("plan", "--json").stdout)["models"]
    assert planned["command"][2:4] == ["-m", "tiny_server"]
    assert "--tokens=3" in planned["command"]

    listed = json.loads(home.yibu("engine", "ls", "--json").stdout)["environments"]
    assert {"tiny"} == {row["engine"] for row in listed if row["name"] == "tiny"}
    home.yibu("engine", "install", "tiny", "--wheels", str(wheel.parent))

    home.yibu("up", "-d")
    assert home.chat("t")["usage"]["completion_tokens"] == 3
    home.yibu("down")
    broken = {"fail-start": "tiny is broken"}
    home.write([{"name": "t", "engine": "tiny", "source": str(model), "options": broken}])
    failed = home.yibu("up", "-d", code=None)
    assert failed.returncode != 0
    assert "Tiny broke." in failed.stderr

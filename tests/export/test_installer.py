"""The installer, with a wheel in an index of its own and a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from yibu import __version__

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]
REPOSITORY = Path(__file__).parents[2]
SHELL = shutil.which("dash") or "/bin/sh"


@dataclass(frozen=True, slots=True)
class User:
    home: Path
    env: Mapping[str, str]

    def install(self, *words: str, code: int = 0, **env: str) -> str:
        """Run the script as a pipe from curl would have it, and return what it says."""
        script = (REPOSITORY / "scripts/install.sh").read_bytes()
        done = subprocess.run(
            [SHELL, "-s", "--", *words], input=script, env={**self.env, **env}, capture_output=True,
            check=False, timeout=1200, cwd=self.home,
        )  # fmt: skip
        said = done.stderr.decode()
        assert done.returncode == code, said
        return said + done.stdout.decode()

    @property
    def program(self) -> Path:
        return self.home / ".local/bin/yibu"

    def version(self) -> str:
        command = [str(self.program), "--version"]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, check=True
        ).stdout


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a package index that has yibu."""
    folder = tmp_path_factory.mktemp("index")
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir"]
    subprocess.run([*command, str(folder / "yibu"), str(REPOSITORY)], check=True, timeout=500)
    wheel = next((folder / "yibu").glob("*.whl")).name
    (folder / "yibu/index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    return folder.as_uri()


@pytest.fixture
def user(tmp_path: Path, index: str) -> User:
    home = tmp_path / "a home"  # pip's own programs begin otherwise where a path has a space
    home.mkdir()
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("YIBU_", "XDG_", "UV_", "PYTHON"))
    }
    further = os.environ.get("PIP_EXTRA_INDEX_URL", "")
    return User(
        home, {**kept, "HOME": str(home), "PIP_EXTRA_INDEX_URL": f"{index} {further}".strip(),
               "YIBU_PYTHON": sys.executable},
    )  # fmt: skip


def test_it_installs_upgrades_and_removes(user: User) -> None:
    said = user.install()
    assert "Add it to your PATH" in said
    assert user.version() == f"yibu {__version__}\n"
    assert user.program.resolve() == (user.home / ".local/share/yibu/venv/bin/yibu").resolve()
    left = [path for path in (user.home / ".local/share/yibu/venv/bin").iterdir()
            if path.is_file() and b"venv.new" in path.read_bytes()]  # fmt: skip
    assert left == []

    # One that does not exist leaves the old one as it was.
    assert "0.0.0.dev9 could not be installed" in user.install("--version", "0.0.0.dev9", code=1)
    assert user.version() == f"yibu {__version__}\n"

    store = user.home / ".local/share/yibu/store"
    store.mkdir()
    user.install("--uninstall")
    assert not user.program.is_symlink()
    assert [path.name for path in store.parent.iterdir()] == ["store"]  # models stay
    user.install("--uninstall", "--purge")
    assert not store.parent.exists()
    user.install("--uninstall")  # nothing is there: no fault


def test_what_is_another_s_is_left_alone(user: User) -> None:
    user.program.parent.mkdir(parents=True)
    user.program.write_text("mine")
    assert "did not make it" in user.install(code=1)
    user.install("--uninstall")
    assert user.program.read_text() == "mine"


def test_it_says_what_is_wrong(user: User) -> None:
    assert "unknown option --nonsense" in user.install("--nonsense", code=1)
    assert "--purge goes with --uninstall" in user.install("--purge", code=1)
    assert "YIBU_PYTHON=/bin/false" in user.install(code=1, YIBU_PYTHON="/bin/false")
    assert "XDG_DATA_HOME" in user.install("--help")
    assert not (user.home / ".local").exists()


def test_uv_is_taken_where_no_python_has_venv(user: User, tmp_path: Path) -> None:
    """As on a Debian without python3-venv. The index is the one that pip's variables name."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("python3", *(f"python3.{minor}" for minor in range(11, 15))):
        text = f'#!/bin/sh\ncase "$*" in *ensurepip* | *"-m venv"*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n'
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "uv").symlink_to(Path(sys.executable).parent / "uv")
    said = user.install(
        YIBU_PYTHON="", PATH=f"{programs}:/usr/bin:/bin", UV_PYTHON_DOWNLOADS="never", UV_OFFLINE="0",
        UV_INDEX_STRATEGY="unsafe-best-match",
    )  # fmt: skip
    assert "uv brings one" in said
    assert user.version() == f"yibu {__version__}\n"

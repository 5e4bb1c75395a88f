"""What `pip install yibu` brings: all files of the package, and what is said of it."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.licenses import canonicalize_license_expression
from packaging.requirements import Requirement

from tests.export.deployments import deployment
from yibu import __version__
from yibu.export import compose

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built where an ignored folder links to the sources, as an engine's environment does."""
    folder = tmp_path_factory.mktemp("dist")
    ignored = REPOSITORY / ".test-cache" / "linking"
    ignored.mkdir(parents=True, exist_ok=True)
    link = ignored / "yibu"
    link.unlink(missing_ok=True)
    link.symlink_to(REPOSITORY / "src/yibu")
    command = [
        sys.executable,
        "-m",
        "uv",
        "build",
        "--quiet",
        "--out-dir",
        str(folder),
        str(REPOSITORY),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    shutil.rmtree(ignored)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(distributions.glob("*.whl")))


def tracked(folder: str) -> set[str]:
    """Files of the repository, as the next commit would have them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder]
    listed = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, check=True
    ).stdout.decode()
    return {name for name in listed.split("\0") if name and (REPOSITORY / name).exists()}


def test_every_file_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """Locks, tables, templates, the console and its licences as well as modules, and what `yibu docs`
    reads."""
    expected = {name.removeprefix("src/") for name in tracked("src/yibu")}
    expected |= {
        f"yibu/documents/{name.removeprefix('docs/')}"
        for name in tracked("docs")
        if not name.startswith("docs/images/")
    }
    expected |= {f"yibu/documents/{name}.md" for name in ("changelog", "contributing", "security")}
    assert any(not name.endswith(".py") for name in expected)
    packed = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert packed == expected


def test_its_metadata_is_whole(wheel: zipfile.ZipFile) -> None:
    folder = f"yibu-{__version__}.dist-info"
    metadata = email.message_from_bytes(wheel.read(f"{folder}/METADATA"))
    assert metadata["Version"] == __version__
    assert canonicalize_license_expression(metadata["License-Expression"]) == "Apache-2.0"
    assert wheel.read(f"{folder}/licenses/NOTICE") == (REPOSITORY / "NOTICE").read_bytes()
    assert wheel.read(f"{folder}/licenses/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()
    assert b"yibu = yibu.__main__:main" in wheel.read(f"{folder}/entry_points.txt")
    needed = {Requirement(line).name for line in metadata.get_all("Requires-Dist", [])}
    assert {"fastapi", "uvicorn", "uv"} <= needed
    assert metadata.get_payload()  # the README, which the index shows


def test_the_sdist_has_what_it_takes_to_build_and_test(distributions: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {name for folder in ("src", "tests", "docs", "scripts") for name in tracked(folder)}
    assert expected <= names
    assert {"pyproject.toml", "LICENSE", "NOTICE", "README.md"} <= names


def test_the_image_is_built_with_this_wheel(distributions: Path, tmp_path: Path) -> None:
    """With the file, not by name: an index may have a package of this name that is somebody else's."""
    files = compose.export(deployment(tmp_path), "debian")
    (made,) = distributions.glob("*.whl")
    assert f"ARG YIBU=/tmp/wheels/{made.name}\n" in files["Dockerfile"].text
    assert made.name in files["wheels/README"].text

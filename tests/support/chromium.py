"""A Chromium for tests of the console: Debian's where it is installed, else one from npm in the test cache.

``python -m tests.support.chromium`` makes sure that there is one, and says which.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.fetch_console import registry

NAMES = ("chromium", "chromium-browser", "google-chrome")
VERSION = "147.0.0"
INTEGRITY = "sha512-4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ=="
"""Of npm's @sparticuz/chromium: a headless Chromium for x86-64 Linux with the libraries that bare machines lack."""
PARTS = ("chromium", "al2023.tar", "swiftshader.tar", "fonts.tar")
_DRAWS = 30
"""Seconds for an empty page, on a busy machine."""
_UNPACK = """
import { createReadStream, createWriteStream } from "node:fs";
import { createBrotliDecompress } from "node:zlib";
import { pipeline } from "node:stream/promises";
const [from, to] = process.argv.slice(-2);
await pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to));
"""


@dataclass(frozen=True, slots=True)
class Chromium:
    path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that it needs."""


def cache() -> Path:
    root = os.environ.get("YIBU_TEST_CACHE") or Path(__file__).parents[2] / ".test-cache"
    return Path(root) / f"chromium-{VERSION}"


def find() -> Chromium | None:
    """The one that is there; None where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return Chromium(Path(found))
    kept = cache() / "chromium"
    if not kept.exists():
        return None
    folder = cache()
    return Chromium(
        kept,
        {"LD_LIBRARY_PATH": f"{folder}/lib", "FONTCONFIG_PATH": str(folder)},
    )


def fetch() -> None:
    """Bring npm's into the cache; raises OSError or ValueError where that fails."""
    base = "@sparticuz/chromium"
    url = f"{registry()}/{base}/-/chromium-{VERSION}.tgz"
    folder = cache()
    making = folder.with_name(f"{folder.name}.{os.getpid()}")
    making.mkdir(parents=True)
    try:
        archive = making / "archive.tgz"
        with urllib.request.urlopen(url, timeout=180) as answer, archive.open("wb") as file:
            shutil.copyfileobj(answer, file)
        digest = hashlib.sha512(archive.read_bytes()).digest()
        found = "sha512-" + base64.b64encode(digest).decode()
        if found != INTEGRITY:
            message = f"{url}: expected {INTEGRITY}, found {found}"
            raise ValueError(message)
        with tarfile.open(archive) as tar:
            tar.extractall(making, filter="data")
        for part in PARTS:
            _unpack(making / "package/bin" / f"{part}.br", making / part)
            if part.endswith(".tar"):
                with tarfile.open(making / part) as tar:
                    tar.extractall(making, filter="data")
        (making / "chromium").chmod(0o755)
        shutil.rmtree(making / "package")
        archive.unlink()
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _unpack(packed: Path, to: Path) -> None:
    """Brotli, by the Node.js that Playwright brings along."""
    from playwright._impl._driver import compute_driver_executable

    node, _ = compute_driver_executable()
    words = [node, "--input-type=module", "-e", _UNPACK, "--", str(packed), str(to)]
    subprocess.run(words, check=True, timeout=300)


def _try() -> None:
    """Whether it draws on this machine: on some it starts, and no page ever shows; raises OSError where it does not."""
    words = ["--headless", "--no-sandbox", "--dump-dom", "about:blank"]
    found = find()
    assert found is not None
    try:
        env = {**os.environ, **found.env}
        subprocess.run(
            [found.path, *words], env=env, capture_output=True, check=True, timeout=_DRAWS
        )
    except subprocess.SubprocessError as error:
        shutil.rmtree(cache())
        message = f"npm's Chromium draws nothing here ({error}); install Debian's"
        raise OSError(message) from error


def main() -> int:
    if find() is None:
        try:
            fetch()
            _try()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"No Chromium, so that the tests of the console are skipped: {error}")
            return 1
    chromium = find()
    assert chromium is not None
    print(f"The console is tested in {chromium.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

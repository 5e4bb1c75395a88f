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
_FONTS = "<fontconfig><dir>{fonts}</dir><cachedir>{fonts}</cachedir></fontconfig>"
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
        # Its own names /tmp/fonts, where nobody unpacked any.
        (making / "fonts.conf").write_text(_FONTS.format(fonts=folder / "fonts"))
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


def _try(chromium: Chromium) -> None:
    """See that a heading has a height, which it has not where no font is found; by Playwright, as the
    tests do it: npm's has no ``--dump-dom``, and waits for ever where it is asked for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path, args=["--no-sandbox"], env={**os.environ, **chromium.env}
        )
        page = browser.new_page()
        page.set_content("<h1>yibu</h1>")
        height = page.evaluate("document.querySelector('h1').offsetHeight")
        browser.close()
    if not height:
        message = f"{chromium.path} draws no letters: it finds no font"
        raise OSError(message)


def main() -> int:
    from playwright.sync_api import Error

    try:
        if find() is None:
            fetch()
        chromium = find()
        assert chromium is not None
        _try(chromium)
    except (OSError, ValueError, subprocess.SubprocessError, Error) as error:
        print(f"No Chromium for the tests of the console: {error}")
        return 1
    print(f"The console is tested in {chromium.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fetch the console's libraries from npm: ``scripts/fetch_console.py [--check]``.

Each package is pinned by version and by the hash that npm publishes. The files that the page uses are kept in
``src/yibu/console/vendor`` with their licences, so that neither users nor the tests need npm. ``--check`` fetches
nothing: it compares the files with ``vendor/manifest.json``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src/yibu/console/vendor"
_DEFAULT_REGISTRY = "https://registry.npmjs.org"
_FONTS = (
    "AMS-Regular Caligraphic-Bold Caligraphic-Regular Fraktur-Bold Fraktur-Regular Main-Bold "
    "Main-BoldItalic Main-Italic Main-Regular Math-BoldItalic Math-Italic SansSerif-Bold "
    "SansSerif-Italic SansSerif-Regular Script-Regular Size1-Regular Size2-Regular Size3-Regular "
    "Size4-Regular Typewriter-Regular"
)


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str
    integrity: str
    """``sha512-…`` of the archive, as npm publishes it."""
    files: Mapping[str, str]
    """Path in the package → path below ``vendor``."""
    replace: Mapping[str, str] = field(default_factory=dict)
    """Text → text in every file: bare imports, which browsers resolve only with an import map."""


PACKAGES = (
    Package(
        "preact",
        "11.2.0",
        "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        {
            "dist/preact.mjs": "preact/preact.js",
            "hooks/dist/hooks.mjs": "preact/hooks.js",
            "LICENSE": "preact/LICENSE",
        },
        {'from"preact"': 'from"./preact.js"', "//# sourceMappingURL=": "// source map: "},
    ),
    Package(
        "htm",
        "3.1.1",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        {"dist/htm.mjs": "htm/htm.js", "LICENSE": "htm/LICENSE"},
    ),
    Package(
        "uplot",
        "1.6.32",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        {
            "dist/uPlot.iife.min.js": "uplot/uPlot.js",
            "dist/uPlot.min.css": "uplot/uPlot.css",
            "LICENSE": "uplot/LICENSE",
        },
    ),
    Package(
        "marked",
        "18.2.1",
        "sha512-ii4bxCTCqqwpT86XZWgJNs+ZnAIZksmLGYMViWA7PDIXYIeNo1x6cDdX3JOip9NM/cI6p8z57FxliACboTruMA==",
        {"lib/marked.esm.js": "marked/marked.js", "LICENSE": "marked/LICENSE"},
        {"//# sourceMappingURL=": "// source map: "},
    ),
    Package(
        "dompurify",
        "3.5.0",
        "sha512-LYC0ZkE8P1V42JsRYTwMdme/2ET8SpOc5AA2eOFjP/IadvRd2fwiT4TVz5vkfy0XUx12aS2UaRkTnfVPNOv9vw==",
        {"dist/purify.min.js": "dompurify/purify.js", "LICENSE": "dompurify/LICENSE"},
        {"//# sourceMappingURL=": "// source map: "},
    ),
    Package(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "sha512-KvOKXODaiFmId9xaq3xc5xCL66wVLUuOngDbO9B/kewbFTqdGbn2nJxNhN3H5R1cgDTVj6R8vH0zgiNDEGjpDw==",
        {"es/highlight.min.js": "highlight/highlight.js", "LICENSE": "highlight/LICENSE"},
    ),
    Package(
        "katex",
        "0.19.1",
        "sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA==",
        {
            "dist/katex.min.js": "katex/katex.js",
            "dist/katex.min.css": "katex/katex.css",
            "LICENSE": "katex/LICENSE",
            **{
                f"dist/fonts/KaTeX_{one}.woff2": f"katex/fonts/KaTeX_{one}.woff2"
                for one in _FONTS.split()
            },
        },
    ),
)


def fetched(package: Package, source: str) -> dict[str, bytes]:
    """The package's files by their path below ``vendor``; exits where the archive is not the pinned one."""
    base = package.name.rpartition("/")[2]
    url = f"{source}/{package.name}/-/{base}-{package.version}.tgz"
    with urllib.request.urlopen(url, timeout=180) as answer:
        archive = answer.read()
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != package.integrity:
        sys.exit(f"{url}: expected {package.integrity}, found {found}")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for inside, outside in package.files.items():
            member = tar.extractfile(f"package/{inside}")
            if member is None:
                sys.exit(f"{url}: has no file {inside}")
            data = member.read()
            if outside.endswith((".js", ".css")):
                for old, new in package.replace.items():
                    data = data.replace(old.encode(), new.encode())
            files[outside] = data
    return files


def differences() -> list[str]:
    """Which files below ``vendor`` are not those of the manifest."""
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    pinned = {one.name: [one.version, one.integrity] for one in PACKAGES}
    lines = []
    if manifest["packages"] != pinned:
        lines.append("vendor/manifest.json: other versions than scripts/fetch_console.py pins")
    for name, expected in manifest["files"].items():
        path = VENDOR / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no file"
        if found != expected:
            lines.append(f"vendor/{name}: expected {expected}, found {found}")
    there = {str(one.relative_to(VENDOR)) for one in VENDOR.rglob("*") if one.is_file()}
    lines += [
        f"vendor/{one}: not in the manifest"
        for one in sorted(there - {*manifest["files"], "manifest.json"})
    ]
    return lines


def registry() -> str:
    """The registry that npm is configured with, so that mirrors are used."""
    try:
        done = subprocess.run(
            ["npm", "config", "get", "registry"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return _DEFAULT_REGISTRY
    return done.stdout.strip().rstrip("/") or _DEFAULT_REGISTRY


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare the kept files, fetch nothing"
    )
    if parser.parse_args(arguments).check:
        lines = differences()
        print("\n".join(lines) or "The console's libraries are the pinned ones.")
        return 1 if lines else 0
    source = registry()
    files: dict[str, bytes] = {}
    for package in PACKAGES:
        files |= fetched(package, source)
        print(f"{package.name} {package.version}", file=sys.stderr)
    for name, data in files.items():
        path = VENDOR / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    manifest = {
        "packages": {one.name: [one.version, one.integrity] for one in PACKAGES},
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    (VENDOR / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    lines = differences()
    print("\n".join(lines), end="", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""MkDocs hook: pages from the repository's root, what both languages share, and links to them.

Links in the Markdown files are those that work on GitHub; here they become links within the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOT_PAGES = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that the navigation does not name at its end, so that a new one is never lost."""
    there = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]
    listed = _listed(config.nav)
    more = [name for name in there if name not in listed and not name.startswith("zh/")]
    if more:
        config.nav = [*config.nav, {"更多" if config.theme["language"] == "zh" else "More": more}]
    return config


def _listed(nav: object) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    values = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ()
    return {name for value in values for name in _listed(value)}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages; and to the Chinese site, which has its own, pictures and the schema."""
    if Path(config.docs_dir) == DOCS:
        added = {target: ROOT / name for name, target in ROOT_PAGES.items()}
    else:
        below = [path for path in sorted(DOCS.rglob("*.*")) if path.suffix != ".md"]
        added = {path.relative_to(DOCS).as_posix(): path for path in below}
    for name, path in added.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's pages."""
    del files
    source = Path(page.file.abs_src_path or "")

    def within(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        anchor = match[2] or ""
        uri = _uri(target, Path(config.docs_dir))
        if uri is None:
            return match[0]
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".") + anchor

    return _LINK.sub(within, markdown)


def _uri(target: Path, docs: Path) -> str | None:
    """The page's path in the site; None for a file of the repository that the site does not have."""
    for folder in (docs, DOCS):
        if target.is_relative_to(folder):
            return target.relative_to(folder).as_posix()
    return ROOT_PAGES.get(target.name) if target.parent == ROOT else None

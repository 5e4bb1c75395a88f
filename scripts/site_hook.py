"""MkDocs hook: pages from the repository's root, English pages where there is no translation, and links to both.

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
NOTE = "> 本页尚无中文译文，以下为英文原文。\n\n"
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
    """Add the root's pages, and for the Chinese site every English page without a translation."""
    for name, target in ROOT_PAGES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / name)))
    if Path(config.docs_dir) != DOCS:
        for path in sorted(DOCS.rglob("*.*")):
            name = path.relative_to(DOCS).as_posix()
            if not name.startswith("zh/") and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's pages, and say where a page is not translated."""
    del files
    source = Path(page.file.abs_src_path or "")

    def within(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        anchor = match[2] or ""
        uri = _uri(target, Path(config.docs_dir))
        if uri is None:
            return match[0]
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".") + anchor

    text = _LINK.sub(within, markdown)
    untranslated = config.theme["language"] == "zh" and not source.is_relative_to(config.docs_dir)
    return NOTE + text if untranslated else text


def _uri(target: Path, docs: Path) -> str | None:
    """The page's path in the site; None for a file of the repository that the site does not have."""
    for folder in (docs, DOCS):
        if target.is_relative_to(folder):
            return target.relative_to(folder).as_posix()
    return ROOT_PAGES.get(target.name) if target.parent == ROOT else None

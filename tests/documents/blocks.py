"""The code blocks of the documents: what each is, and why one is not run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OUTPUT = frozenset({"", "text"})
"""Languages of blocks that show what is printed."""
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]*?) -->\n)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"\n]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    title: str | None = None
    """The file that it is to be saved as."""
    why: str | None = None
    """Why it is not run; None where it is."""
    line: int = 0


def pages() -> list[Path]:
    """The tutorials and how-tos in English: their blocks run. Those in Chinese have the same."""
    return sorted([*DOCS.glob("tutorials/*.md"), *DOCS.glob("howto/*.md")])


def translations() -> list[tuple[Path, Path]]:
    """Each page in English with the one that has to be there in Chinese."""
    chinese = DOCS / "zh"
    below = [path for path in sorted(DOCS.rglob("*.md")) if not path.is_relative_to(chinese)]
    of_root = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
    return [
        (ROOT / "README.md", ROOT / "README.zh-CN.md"),
        *((page, chinese / page.relative_to(DOCS)) for page in below),
        *((ROOT / name, chinese / name.lower()) for name in of_root),
    ]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["text"], m["title"], m["why"], text.count("\n", 0, m.start()) + 1)
        for m in _BLOCK.finditer(text)
    ]


def without_comments(block: Block) -> str:
    """The code alone, which a translation leaves as it is."""
    lines = (re.sub(r"(^|\s+)#.*$", "", line) for line in block.text.splitlines())
    return "\n".join(line for line in lines if line.strip())

"""Every family of the gateway's own metrics is documented."""

from __future__ import annotations

import re
from pathlib import Path

from .conftest import FakeBackend, Serve
from .test_metrics import scrape

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


async def test_every_family(serve: Serve, backend: FakeBackend) -> None:
    async with serve() as gateway:
        page = await scrape(gateway)
    families = set(re.findall(r"^# TYPE (yibu_\w+)", page.text, re.MULTILINE))
    assert families
    assert {name for name in families if f"`{name}`" not in DOCUMENT} == set()
    named = set(re.findall(r"^\| (.*?) \|", DOCUMENT, re.MULTILINE))
    documented = {name for cell in named for name in re.findall(r"`(yibu_\w+)`", cell)}
    assert documented == families

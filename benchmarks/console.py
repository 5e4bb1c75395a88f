"""What the console's first page weighs, and how soon it is painted.

    python benchmarks/console.py [--rounds N] [--json]

A node with a fake engine on this machine, and a headless Chromium with an empty cache for each round (``cold``)
and with what the round before has left (``warm``). Bytes are those that went over the connection, compressed; the
first paint is the browser's own ``first-contentful-paint``. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, BrowserContext, sync_playwright
from tests.e2e.home import Home, fake
from tests.support.chromium import find

_PAINT = """new Promise(resolve => new PerformanceObserver(list => resolve(list.getEntries()
  .find(entry => entry.name === 'first-contentful-paint').startTime)).observe({type: 'paint', buffered: true}))"""
_READY = "performance.now()"
_BYTES = """performance.getEntries().filter(entry => 'transferSize' in entry)
  .reduce((sum, entry) => sum + entry.transferSize, 0)"""


def visit(context: BrowserContext, url: str) -> dict[str, float]:
    page = context.new_page()
    page.goto(f"{url}/#/overview")
    page.get_by_role("heading", name="Overview").wait_for()
    measured = {
        "ready_ms": page.evaluate(_READY),
        "first_paint_ms": page.evaluate(_PAINT),
        "bytes": page.evaluate(_BYTES),
    }
    page.close()
    return measured


def measure(browser: Browser, url: str, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        context = browser.new_context(locale="en-US")
        for rows in found.values():
            rows.append(visit(context, url))
        context.close()
    return {
        side: {name: round(statistics.median(one[name] for one in rows)) for name in rows[0]}
        for side, rows in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    chromium = find()
    if chromium is None:
        sys.exit("no Chromium here: install Debian's, or make browser")
    with tempfile.TemporaryDirectory() as root, Home(Path(root)) as home:
        home.write([fake("chat")])
        home.yibu("up", "-d")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium.path,
                args=["--no-sandbox"],
                env={**os.environ, **chromium.env},
            )
            found = measure(browser, home.url(), asked.rounds)
            browser.close()
    if asked.json:
        print(json.dumps({"version": 1, **found}))
        return
    for side, row in found.items():
        print(f"{side}: " + ", ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()

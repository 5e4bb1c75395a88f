"""The families of a running node's metrics page are those that docs/metrics.md has a row for."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.home import Home, fake, scrape

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each family that has a row."""
    found = {}
    for names, kind in re.findall(r"^\| (`yibu_.*?) \| (.*?) \|", DOCUMENT, re.MULTILINE):
        word, _, labels = kind.partition(":")
        for name in re.findall(r"`(yibu_\w+)`", names):
            found[name] = (word, set(re.findall(r"\w+", labels)))
    return found


def test_every_family_is_documented_and_every_documented_one_is_there(home: Home) -> None:
    metrics = home.root / "engine-metrics"
    metrics.write_text("# TYPE x gauge\nx 1\n")
    well = fake("well", "--metrics", str(metrics), memory="1GiB")
    home.write([well, fake("broken", "--fail-start", "no")])
    home.yibu("up", "-d", code=1)
    home.yibu("key", "add", "somebody")
    home.yibu("test", "well", code=None)
    page = scrape(home, home.client.call("access")["key"])
    kinds = dict(re.findall(r"^# TYPE (yibu_\w+) (\w+)", page.text, re.MULTILINE))
    rows = documented()
    assert set(kinds) == set(rows)
    assert kinds == {name: kind for name, (kind, _) in rows.items()}
    for name, (kind, labels) in rows.items():
        samples = page.labels(f"{name}_count" if kind == "histogram" else name)
        for found in samples:
            assert set(found) <= labels, name
        # Without an error, a key's request or a GPU these have no series.
        if not re.search("upstream|gpu|queue_wait", name):
            assert samples, name

"""A dashboard whose queries ask for what a node's metrics page has; rules that Prometheus takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_metrics_documented import documented
from tests.export.deployments import deployment
from yibu.export import grafana

BUILT_IN = {"up"}
ENGINES = ("vllm:", "llamacpp:", "yibu_speech_")
"""Their families come from the engines' pages; a real Prometheus reads those in test_prometheus."""


def expressions() -> Iterator[str]:
    """Every query of the dashboard and of the rules."""
    for panel in grafana.dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    yield from (alert["expr"] for alert in grafana.alerts())


def selectors(query: str) -> list[tuple[str, set[str]]]:
    """The families that a query names, each with the labels that it selects by."""
    without = re.sub(r"\b(by|without) \([^)]*\)", "", query)
    found = re.findall(
        r"\b([a-z_]+:?[a-z_]+)(?:\{([^}]*)\})?(?![a-z_(:]| ?\()", re.sub(r'"[^"]*"', '""', without)
    )
    known = ("yibu_", "vllm:", "llamacpp:", *BUILT_IN)
    return [
        (name, set(re.findall(r"(\w+)[=!]", labels)))
        for name, labels in found
        if name.startswith(known)
    ]


@pytest.mark.parametrize("query", sorted(set(expressions())))
def test_each_query_asks_for_documented_families_and_labels(query: str) -> None:
    """docs/metrics.md is held against a running node's page by its own test."""
    rows = documented()
    found = selectors(query)
    assert found, query
    for name, labels in found:
        if name in BUILT_IN or name.startswith(ENGINES):
            continue
        family = name.removesuffix("_bucket")
        kind, has = rows[family]
        assert (kind == "histogram") == (name != family), query
        assert labels <= has | {"job", "instance"}, query
        grouped = {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")}
        assert grouped <= has | {"job", "instance", "le"}, query
        if re.search(rf"(rate|increase)\({name}\b", query):
            assert kind in ("counter", "histogram"), query
        else:
            assert kind == "gauge", query


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    panels = grafana.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_legends_name_labels_that_the_query_keeps() -> None:
    for panel in grafana.dashboard()["panels"]:
        for target in panel.get("targets", []):
            kept = re.findall(r"by \(([^)]*)\)", target["expr"])
            if kept:
                named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                assert named <= set(kept[0].split(", ")), target


def test_the_same_is_written_each_time(tmp_path: Path) -> None:
    made = deployment(tmp_path, host="0.0.0.0", port=9000)
    files = grafana.export(made)
    assert files == grafana.export(made)
    assert json.loads(files["dashboard.json"].text)["uid"] == "yibu"
    assert "127.0.0.1:9000" in files["prometheus.yaml"].text

"""A Grafana dashboard of a node's ``/metrics``, and what Prometheus needs to read it.

Source: Grafana's dashboard JSON model, schema version 39 (Grafana 10 and later).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml

from yibu.export.deployment import ExportedDeployment, File, Files
from yibu.export.notes import Notes
from yibu.messages import tr

_WIDTH, _HEIGHT = 24, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_MARKS = {
    "{MODEL": '{job=~"$job",instance=~"$instance",model=~"$model"',
    "{NODE": '{job=~"$job",instance=~"$instance"',
    "[RATE]": "[$__rate_interval]",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: queries with their legends."""

    title: str
    unit: str
    queries: Mapping[str, str]
    """PromQL → a legend with labels as ``{{model}}``."""
    about: str = ""
    kind: Literal["timeseries", "stat", "state-timeline"] = "timeseries"
    width: int = 8


def rows() -> dict[str, list[Panel]]:
    """The dashboard's panels, as ``dashboard.yaml`` has them."""
    read = _read("dashboard.yaml")
    return {row: [Panel(**panel) for panel in panels] for row, panels in read.items()}


def alerts() -> list[dict[str, Any]]:
    """The alert rules, as ``alerts.yaml`` has them."""
    found: list[dict[str, Any]] = _read("alerts.yaml")
    return found


def _read(name: str) -> Any:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return yaml.safe_load(text)


def _expression(query: str) -> str:
    for mark, meaning in _MARKS.items():
        query = query.replace(mark, meaning)
    return query


def export(deployment: ExportedDeployment) -> Files:
    """A dashboard, alert rules, and the scrape configuration for both."""
    return {
        "dashboard.json": File(json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"),
        "alerts.yaml": File(_rules()),
        "prometheus.yaml": File(_scrape(deployment)),
    }


def dashboard() -> dict[str, Any]:
    """The dashboard, to be imported or provisioned."""
    return {
        "uid": "yibu",
        "title": "yibu",
        "description": tr(
            "Models, requests and engines of yibu nodes. Written by `yibu export grafana`."
        ),
        "tags": ["yibu", "llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": tr("Data source"),
        "type": "datasource",
        "query": "prometheus",
    }
    above = ""
    for name, label, family in (
        ("job", tr("Job"), "yibu_models"),
        ("instance", tr("Instance"), "yibu_models"),
        ("model", tr("Model"), "yibu_model_state"),
    ):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": f"label_values({family}{{{above}}}, {name})", "refId": name},
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }  # fmt: skip
        above = ",".join(filter(None, [above, f'{name}=~"${name}"']))


def _panels() -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for row, panels in rows().items():
        number += 1
        yield _placed(
            {"type": "row", "title": tr(row), "collapsed": False, "panels": []}, number, 0, y, 24, 1
        )
        x, y = 0, y + 1
        height = 4 if all(panel.kind == "stat" for panel in panels) else _HEIGHT
        for panel in panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            number += 1
            yield _placed(_panel(panel), number, x, y, panel.width, height)
            x += panel.width
        y += height


def _placed(panel: dict[str, Any], number: int, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {"id": number, "gridPos": {"x": x, "y": y, "w": w, "h": h}, **panel}


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": _SOURCE,
            "expr": _expression(query),
            "legendFormat": tr(legend),
        }
        for n, (query, legend) in enumerate(panel.queries.items())
    ]
    return {
        "type": panel.kind,
        "title": tr(panel.title),
        "description": tr(panel.about) if panel.about else "",
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }


def _rules() -> str:
    """The file for ``rule_files``."""
    said = [
        {**rule, "annotations": {name: tr(text) for name, text in rule["annotations"].items()}}
        for rule in alerts()
    ]
    top = tr(
        "Written by `yibu export grafana`. The thresholds are a start: change them to yours.\n"
        "Check changes with: promtool check rules alerts.yaml"
    )
    return Notes().dump({"groups": [{"name": "yibu", "rules": said}]}, top=top)


def _scrape(deployment: ExportedDeployment) -> str:
    notes = Notes()
    job: dict[str, Any] = {
        "job_name": "yibu",
        "scrape_interval": "15s",
        **notes.why("The node asks its engines meanwhile, for two seconds at most."),
        "scrape_timeout": "10s",
        **notes.why(
            "A key of the gateway's, in a file of mode 0600 that Prometheus' user owns; without keys\n"
            "leave this out. `yibu key add prometheus --admin` makes one that sees all keys' requests."
        ),
        "authorization": {"credentials_file": "/etc/prometheus/yibu.key"},
        **notes.why("One address a node."),
        "static_configs": [{"targets": [f"{_address(deployment)}:{deployment.port}"]}],
    }
    top = tr(
        "Add this to prometheus.yml, with alerts.yaml beside it. Then import dashboard.json in Grafana."
    )
    return notes.dump({"rule_files": ["alerts.yaml"], "scrape_configs": [job]}, top=top)


def _address(deployment: ExportedDeployment) -> str:
    host = deployment.config.gateway.host.strip("[]")
    if host in ("0.0.0.0", "::", "localhost"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host

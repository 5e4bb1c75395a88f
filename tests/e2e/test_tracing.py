"""A whole node whose environment asks for traces."""

from __future__ import annotations

from dataclasses import replace

from tests.e2e.home import Home, fake
from tests.support.collector import Collector
from tests.support.polling import until


def test_spans_reach_the_collector_and_its_key_nobody_else(home: Home) -> None:
    with Collector() as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-team=collectors-secret-1f3a",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_SERVICE_NAME": "shop",
        }
        home = replace(home, settings={**home.settings, **settings})
        home.write([fake("fake", "--print-env")])
        home.yibu("up", "-d")
        home.chat("fake")
        until(lambda: len(collector.spans) == 2, "both spans")
        home.yibu("down")
    call = collector.named("chat fake")
    assert call.resource["service.name"] == "shop"
    assert {headers["x-team"] for headers in collector.headers} == {"collectors-secret-1f3a"}
    logs = [file.read_text("utf-8") for file in home.root.rglob("*.log*")]
    assert any(f"trace={call.trace}" in log for log in logs)
    assert not any("collectors-secret-1f3a" in log for log in logs)

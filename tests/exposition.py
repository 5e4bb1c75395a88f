"""A Prometheus exposition, read by Prometheus' own Python parser and held to the format's rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, frozenset[tuple[str, str]]]


class Exposition:
    """``value("name", label="…")`` of an exposition that is whole and well formed."""

    def __init__(self, text: str) -> None:
        assert text.endswith("\n")
        self.text = text
        families = list(text_string_to_metric_families(text))
        self.families = {family.name: family for family in families}
        # A family that comes twice was split, or has two HELP or TYPE lines.
        _once(family.name for family in families)
        _once(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
        _once(re.findall(r"^# HELP (\S+)", text, re.MULTILINE))
        self.values: dict[Series, float] = {}
        _once(
            _series(sample.name, sample.labels) for family in families for sample in family.samples
        )
        for family in families:
            for sample in family.samples:
                self.values[_series(sample.name, sample.labels)] = sample.value
        lines = [line for line in text.split("\n") if line and not line.startswith("#")]
        assert len(lines) == len(self.values)

    def value(self, name: str, /, **labels: str) -> float:
        return self.values[_series(name, labels)]

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for found, labels in self.values if found == name]

    def family(self, name: str) -> Metric:
        return self.families[name]


def _series(name: str, labels: dict[str, str]) -> Series:
    return name, frozenset(labels.items())


def _once(names: Iterable[object]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    assert not twice, f"more than once: {twice}"

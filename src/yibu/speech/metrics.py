"""The engine's metrics, in Prometheus' text format (version 0.0.4).

Written and read on the event loop only, so there are no locks.
"""

from __future__ import annotations

import resource
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from yibu import prometheus
from yibu.prometheus import Labels


class Counter:
    """A total that only grows, by label set."""

    def __init__(self, name: str, explanation: str) -> None:
        self._head = prometheus.head(f"speech_{name}", explanation, "counter")
        self._name = f"speech_{name}"
        self._values: dict[tuple[Labels, Labels], float] = defaultdict(float)
        """Values by label names and label values."""

    def add(self, amount: float = 1.0, **labels: str) -> None:
        self._values[tuple(labels), tuple(labels.values())] += amount

    def lines(self) -> list[str]:
        values = self._values or {((), ()): 0.0}
        rows = (prometheus.sample(self._name, *labels, value) for labels, value in values.items())
        return [*self._head, *rows]


class Gauge:
    """A value that is read when the page is requested."""

    def __init__(self, name: str, explanation: str, read: Callable[[], float]) -> None:
        self._name, self._read = f"speech_{name}", read
        self._explanation = explanation.removesuffix(".")

    def lines(self) -> list[str]:
        rows = [((), self._read())]
        return prometheus.family(self._name, self._explanation, "gauge", (), rows)


class SpeechHistogram(prometheus.Histogram):
    """Observations counted into buckets by their upper bounds."""

    def __init__(self, name: str, explanation: str, bounds: tuple[float, ...]) -> None:
        super().__init__(bounds)
        self._name, self._explanation = f"speech_{name}", explanation

    def lines(self) -> list[str]:
        return [*prometheus.histograms(self._name, self._explanation, (), {(): self})]


_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class SpeechMetrics:
    """All metrics of the engine, by attribute."""

    def __init__(self) -> None:
        self.audio_in = Counter("audio_seconds_in_total", "Seconds of audio decoded")
        self.audio_out = Counter("audio_seconds_out_total", "Seconds of speech recognized")
        self.requests = Counter("requests_total", "Requests answered, by route and HTTP status")
        self.disconnects = Counter("disconnects_total", "Clients that left before their answer")
        self.rejected = Counter("rejected_total", "Requests refused with 429")
        self.model_failures = Counter("model_failures_total", "Segments the model failed on")
        self.model_seconds = Counter("model_seconds_total", "Seconds the model computed")
        self.batch_size = SpeechHistogram(
            "batch_size", "Segments in a batch", (1, 2, 4, 8, 16, 32, 64, 128)
        )
        self.batch_seconds = SpeechHistogram(
            "batch_audio_seconds", "Audio in a batch", (2, 5, 10, 30, 60, 120, 240, 480)
        )
        self.real_time_factor = SpeechHistogram(
            "real_time_factor",
            "Seconds from upload to answer per second of audio",
            (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )
        self.first_segment = SpeechHistogram(
            "time_to_first_segment_seconds", "From upload to the first text", _SECONDS
        )
        self.request_time = SpeechHistogram(
            "request_seconds", "From the request's head to the end of its answer", _SECONDS
        )
        self.live_seconds = Counter("live_audio_seconds_total", "Seconds of live audio heard")
        self.partials = Counter("live_partials_total", "Partial texts of live speech")
        self.final_delay = SpeechHistogram(
            "live_final_seconds", "From the end of live speech, as noticed, to its text", _SECONDS
        )
        self._gauges: list[Gauge] = [
            Gauge("resident_bytes", "Resident memory of this process", resident_bytes)
        ]

    def gauge(self, name: str, explanation: str, read: Callable[[], float]) -> None:
        """Add a value that is read from its owner whenever the page is asked for."""
        self._gauges.append(Gauge(name, explanation, read))

    def render(self) -> str:
        fixed = [
            value for value in vars(self).values() if isinstance(value, Counter | SpeechHistogram)
        ]
        return "\n".join(line for each in (*fixed, *self._gauges) for line in each.lines()) + "\n"


def resident_bytes() -> float:
    """Memory this process holds now; its peak where the system does not tell (macOS)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return float(pages * resource.getpagesize())
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)

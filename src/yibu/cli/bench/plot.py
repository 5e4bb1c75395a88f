"""Charts of a measurement as SVG, and an HTML report with them: one file, no script, no network."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yibu.cli.bench.load import Run, percentile
from yibu.messages import active, tr

_WIDTH, _HEIGHT, _GAP = 640, 300, 24
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 44
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
_GRID, _INK, _PAPER = "#d8d8d8", "#333333", "#ffffff"
_CURVE = (0, 5, 10, 25, 50, 75, 90, 95, 99, 100)
_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .8em;text-align:right;"
    "border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}"
    "svg{max-width:100%;height:auto}code{background:#f4f4f4;padding:.1em .3em}"
)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one pair of axes; ``limit`` is a dashed horizontal line, and a ``cloud`` has spots alone."""

    title: str
    x: str
    y: str
    lines: Sequence[tuple[str, Sequence[Point]]]
    limit: tuple[str, float] | None = None
    cloud: bool = False


def charts(runs: Sequence[Run], slo: float | None) -> list[Chart]:
    """The charts: of several loads a comparison, of one load its requests."""
    limit = (tr("limit"), slo * 1000) if slo is not None else None
    if len(runs) > 1:
        name = tr("chats at once") if runs[0].kind == "concurrency" else tr("requests a second")
        output = [(run.load, run.data()["output_tokens_per_second"]) for run in runs]
        return [
            Chart(tr("Time to the first token"), name, "ms",
                  [(f"p{p}", _over(runs, lambda run, p=p: run.ttft(p))) for p in (50, 95)], limit),
            Chart(tr("Time a token after the first"), name, "ms",
                  [(f"p{p}", _over(runs, lambda run, p=p: percentile(run.values("per_token"), p)))
                   for p in (50, 95)]),
            Chart(tr("Throughput"), name, tr("tokens/s"), [(tr("output"), output)]),
        ]  # fmt: skip
    (run,) = runs
    firsts = [(t.start, t.first * 1000) for t in run.good if t.first is not None]
    curves = [
        (tr("first token"), _curve(run.values("first"))),
        (tr("total"), _curve(run.values("last"))),
    ]
    return [
        Chart(tr("Time to the first token"), tr("seconds since the beginning"), "ms", [(tr("requests"), firsts)],
              limit, cloud=True),
        Chart(tr("Requests that took at most so long"), tr("per cent of requests"), "ms", curves, limit),
        Chart(tr("Time a token after the first"), tr("per cent of requests"), "ms",
              [(tr("time per token"), _curve(run.values("per_token")))]),
    ]  # fmt: skip


def svg(found: Sequence[Chart]) -> str:
    """The charts below each other."""
    height = len(found) * (_HEIGHT + _GAP) - _GAP
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    font = f'font-family="sans-serif" font-size="12" fill="{_INK}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
    ]
    for number, chart in enumerate(found):
        parts.append(f'<g transform="translate(0 {number * (_HEIGHT + _GAP)})">')
        parts += _drawn(chart)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def page(title: str, said: Sequence[str], table: Sequence[Sequence[str]], drawn: str) -> str:
    """An HTML page with what was said, a table whose first row are its heads, and the charts."""
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in said)
    head, *rows = table
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<!doctype html><html lang="{active().replace("_", "-")}"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{paragraphs}<table><tr>{heads}</tr>{body}</table>"
        f"{drawn}</body></html>\n"
    )


def _over(runs: Sequence[Run], value: Any) -> list[Point]:
    found = [(run.load, value(run)) for run in runs]
    return [(load, seconds * 1000) for load, seconds in found if seconds is not None]


def _curve(values: Sequence[float]) -> list[Point]:
    found = [(percent, percentile(values, percent)) for percent in _CURVE]
    return [(percent, seconds * 1000) for percent, seconds in found if seconds is not None]


def _drawn(chart: Chart) -> list[str]:
    points = [point for _, line in chart.lines for point in line]
    if not points:
        return [
            _text(
                _WIDTH / 2,
                _HEIGHT / 2,
                tr("{title}: nothing was measured", title=chart.title),
                "middle",
            )
        ]
    limit = [chart.limit[1]] if chart.limit else []
    x_ticks = _ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = _ticks(0.0, max([y for _, y in points] + limit))

    def at(x: float, y: float) -> Point:
        across = (x - x_ticks[0]) / ((x_ticks[-1] - x_ticks[0]) or 1)
        up = y / (y_ticks[-1] or 1)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [
        _text(_LEFT, 18, f"{chart.title}, {chart.y}", weight="bold"),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, chart.x, "middle"),
    ]
    for tick in y_ticks:
        left, y = at(x_ticks[0], tick)
        parts.append(_line(left, y, _WIDTH - _RIGHT, y, _GRID))
        parts.append(_text(left - 6, y + 4, _number(tick), "end"))
    for tick in x_ticks:
        x, bottom = at(tick, 0.0)
        parts.append(_line(x, bottom, x, bottom + 4, _INK))
        parts.append(_text(x, bottom + 18, _number(tick), "middle"))
    for number, (name, line) in enumerate(chart.lines):
        parts += _series(name, [at(*point) for point in sorted(line)], number, cloud=chart.cloud)
    if chart.limit is not None:
        left, y = at(x_ticks[0], chart.limit[1])
        parts.append(_line(left, y, _WIDTH - _RIGHT, y, _INK, dashed=True))
        parts.append(_text(_WIDTH - _RIGHT, y - 4, chart.limit[0], "end"))
    return parts


def _series(name: str, points: Sequence[Point], number: int, *, cloud: bool) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    spots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = [] if cloud else [f'<polyline points="{path}" fill="none" stroke="{colour}"/>']
    at = _WIDTH - _RIGHT - 110 * (number + 1)
    key = [f'<circle cx="{at}" cy="14" r="4" fill="{colour}"/>', _text(at + 8, 18, name)]
    return [*line, *spots, *key]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose both, about six of them."""
    span = (high - low) or abs(high) or 1.0
    rough = span / 5
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * scale for unit in (1, 2, 5, 10) if unit * scale >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2g}"


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{html.escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'
    )

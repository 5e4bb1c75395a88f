"""`yibu bench` against fake engines whose delays are known: what it measures, orders and draws."""

from __future__ import annotations

import json
import random
import socket
import statistics
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.polling import until
from yibu.cli.bench import plot
from yibu.cli.bench.client import BenchClient, Target, Timing
from yibu.cli.bench.language import BenchOptions, parse_seconds, run, save
from yibu.cli.bench.load import Amount, Run, _poisson, percentile
from yibu.cli.main import run as yibu
from yibu.errors import NotRunningError, UsageError, YibuError

FAKE = Path(__file__).parents[1] / "fakes" / "engine.py"
SVG = "{http://www.w3.org/2000/svg}"


@contextmanager
def engine(*switches: str) -> Iterator[str]:
    """A fake engine; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-S", str(FAKE), "--port", str(port), *switches]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: healthy(url), "the engine")
        yield url
    finally:
        process.kill()
        process.wait(60)


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wanted(**changes: Any) -> BenchOptions:
    usual: dict[str, Any] = {
        "rate": None, "concurrency": None, "sweep": False, "prompt_tokens": 100, "output_tokens": 5,
        "requests": None, "seconds": None, "slo": None, "seed": 1,
    }  # fmt: skip
    return BenchOptions(**{**usual, **changes})


def test_what_is_known_is_what_is_measured() -> None:
    with engine("--count-words", "--slow-tokens", "0.02", "--first-token", "0.2") as url:
        report = run(Target(url, "fake"), wanted(concurrency=3, requests=12))
    (found,) = [run_.data() for run_ in report.runs]
    assert found["requests"] == 12
    assert found["errors"] == {}
    assert found["completion_tokens"]["mean"] == 5
    # The prompt is as long as it was to be, the template counted in.
    assert found["prompt_tokens"] == {"mean": 100.0, "min": 100, "max": 100}
    assert report.prompts.how == "usage"
    assert found["tokens_counted_by_server"]
    # A busy machine adds to times, and takes nothing away from what the engine sleeps.
    assert found["ttft_seconds"]["p50"] >= 0.22
    assert found["total_seconds"]["p50"] >= 0.3
    for timing in report.runs[0].timings:
        assert timing.first is not None
        assert timing.last is not None
        assert len(timing.gaps) == 4
        assert sum(timing.gaps) == pytest.approx(timing.last - timing.first)
        assert timing.per_token == pytest.approx(sum(timing.gaps) / 4)
    assert (
        found["ttft_seconds"]["p50"] <= found["ttft_seconds"]["p95"] <= found["ttft_seconds"]["max"]
    )
    assert 0 < found["output_tokens_per_second"] <= 3 * 5 / 0.3
    assert report.kept


def test_prompts_by_a_tokenizer_and_none_twice() -> None:
    with engine("--count-words", "--tokenizer") as url:
        report = run(Target(f"{url}/v1", "fake"), wanted(requests=4, prompt_tokens=60))
        again = run(Target(url, "fake"), wanted(requests=4, prompt_tokens=60))
    assert report.prompts.how == "tokenize"
    assert report.prompts.overhead == 11
    assert report.runs[0].data()["prompt_tokens"]["mean"] == 60
    texts = [report.prompts.text(number) for number in range(200)]
    assert texts == [again.prompts.text(number) for number in range(200)]
    assert len({tuple(text.split()[:6]) for text in texts}) == 200


def test_a_rate_is_kept_whether_the_server_follows_or_not() -> None:
    """One slot and answers of 0.2 s: requests pile up, and wait longer and longer."""
    with engine("--count-words", "--slots", "1", "--first-token", "0.2") as url:
        report = run(Target(url, "fake"), wanted(rate=50.0, requests=8))
    (found,) = report.runs
    assert len(found.values("first")) == 8
    assert found.seconds >= 8 * 0.2
    arrivals = list(_poisson(random.Random(5), 50.0, Amount(2000)))
    gaps = [after - before for before, after in pairwise(arrivals)]
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.1)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.15)  # as an exponential's is
    assert list(_poisson(random.Random(5), 50.0, Amount(seconds=1.0)))[-1] < 1.0


def test_a_sweep_ends_where_the_limit_breaks(tmp_path: Path) -> None:
    """Two slots, answers of 0.2 s: of four chats at once two wait as long at least."""
    with engine("--count-words", "--slots", "2", "--first-token", "0.2") as url:
        asked = wanted(sweep=True, slo=0.35, output_tokens=1, seconds=0.6)
        report = run(Target(url, "fake"), asked)
        least = run(Target(url, "fake"), replace(asked, slo=50.0, concurrency=3))
    assert report.holds is not None
    assert report.holds < 4
    loads = [run_.load for run_ in report.runs]
    assert loads == sorted(loads)
    assert max(loads) <= 4
    if report.holds:  # on a machine that stands still for a second not even one is held
        chats = "one chat" if report.holds == 1 else f"{report.holds} chats"
        assert (report.sentence() or "").startswith(f"This machine holds {chats}")
        assert "350 ms to the first token" in (report.sentence() or "")
    assert least.holds == 3
    assert "holds at least 3 chats" in (least.sentence() or "")
    assert [run_.load for run_ in least.runs] == [1, 2, 3]
    save(report, tmp_path / "x.html", "html")
    page = (tmp_path / "x.html").read_text("utf-8")
    assert str(report.sentence()) in page
    assert "<script" not in page
    assert "http" not in page.replace(url, "").replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("switches", "word"),
    [(["--no-chat"], "HTTP 404"), (["--count-words", "--tokens", "0"], "without a token"), ([], "count")],
)  # fmt: skip
def test_a_server_that_cannot_be_measured_is_said_to_be(switches: list[str], word: str) -> None:
    with engine(*switches) as url, pytest.raises(YibuError, match=word):
        run(Target(url, "fake"), wanted(requests=2))


def test_requests_that_fail_are_counted_by_their_error() -> None:
    with engine("--count-words", "--crash-after-requests", "20") as url:
        report = run(Target(url, "fake"), wanted(concurrency=2, requests=60))
    found = report.runs[0]
    assert len(found.timings) == 60
    assert set(found.errors) <= {"connection: closed", "connection: connect"}
    assert 40 <= found.errors.total() < 60
    assert not report.kept


def test_nobody_there() -> None:
    with pytest.raises(NotRunningError, match="does not answer"):
        run(Target("http://127.0.0.1:1", "x"), wanted(requests=1))
    with pytest.raises(UsageError, match="no URL"):
        BenchClient(Target("127.0.0.1:1", "x"))


def test_the_verb_prints_tables_and_json_and_ends_by_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text("secret-of-a-rival\n")
    chart = tmp_path / "plot.svg"
    with engine("--count-words", "--first-token", "0.1") as url:
        words = ["bench", "fake", "--url", url, "--key-file", str(key), "--requests", "4"]
        assert yibu([*words, "-o", str(chart)]) == 0
        shown = capsys.readouterr()
        assert yibu([*words, "--json", "--slo", "1ms"]) == 1
        found = json.loads(capsys.readouterr().out)
    assert "TTFT P95" in shown.out
    assert "first token" in shown.out
    assert "secret-of-a-rival" not in shown.out + shown.err + json.dumps(found)
    assert found["version"] == 1
    assert found["settings"]["slo"] == 0.001
    assert found["runs"][0]["concurrency"] == 1
    root = ET.parse(chart).getroot()
    assert len(root.findall(f".//{SVG}g")) == 3
    assert len([spot for spot in root.iter(f"{SVG}circle") if spot.get("r") == "2.5"]) >= 4


@pytest.mark.parametrize(
    "words",
    [
        ["--sweep", "--rate", "1"],
        ["--duration", "long"],
        ["--slo", "0"],
        ["-o", "plot.png"],
        ["--key-file", "nothing"],
        ["nothing.wav"],
    ],
)
def test_wrong_use(words: list[str]) -> None:
    assert yibu(["bench", "fake", "--url", "http://127.0.0.1:1", *words]) == 2


def test_numbers() -> None:
    values = [random.Random(3).random() for _ in range(101)]
    values = random.Random(3).sample(range(1000), 101)  # type: ignore[assignment]
    cut = statistics.quantiles(values, n=100, method="inclusive")
    assert [percentile(values, percent) for percent in (50, 90, 99)] == [
        pytest.approx(cut[percent - 1]) for percent in (50, 90, 99)
    ]
    assert percentile([], 50) is None
    assert [parse_seconds(text, "--slo") for text in ("500ms", "2s", "1m", "0.5")] == [
        0.5,
        2,
        60,
        0.5,
    ]
    alone = Timing(0.0, first=0.1, last=0.1, completion_tokens=1)
    assert alone.per_token is None


@pytest.mark.usefixtures("chinese")
def test_single_requests_are_joined_by_no_line_in_any_language() -> None:
    one = Run("rate", 2, [Timing(at, 0.1 + at, 0.2 + at, [], 5, 2) for at in (0.0, 0.5)], 1.0)
    drawn = plot.charts([one], None)
    assert [chart.cloud for chart in drawn] == [True, False, False]
    assert ET.fromstring(plot.svg(drawn[:1])).find(f".//{SVG}polyline") is None
    assert len(list(ET.fromstring(plot.svg(drawn[1:])).iter(f"{SVG}polyline"))) == 3


def test_charts_of_nothing_and_of_odd_numbers_are_drawn() -> None:
    empty = Run("concurrency", 1, [Timing(0.0, error="x")], 1.0)
    same = Run("rate", 2, [Timing(0.0, 0.1, 0.1, [], 5, 1)] * 3, 1.0)
    huge = Run("concurrency", 512, [Timing(0.0, 1e6, 2e6, [1.0], 5, 2)], 1e6)
    for runs in ([empty], [same], [empty, huge], [huge]):
        root = ET.fromstring(plot.svg(plot.charts(runs, 0.5)))
        assert root.tag == f"{SVG}svg"
        for line in root.iter(f"{SVG}polyline"):
            assert "nan" not in (line.get("points") or "")

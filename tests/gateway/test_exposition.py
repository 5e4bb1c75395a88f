"""Engines' metrics merged: one valid exposition, whatever the engines say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

from tests.exposition import Exposition
from yibu.gateway.monitoring.exposition import MAX_LINES, Merger, TooLongError


def merge(*texts: str, page: str = "") -> tuple[Exposition, list[int]]:
    """Each text as a replica of the model ``m``; the page, and the lines dropped of each."""
    merger = Merger(page)
    dropped = [
        merger.add(text, {"model": "m", "replica": f"m-{number}"})
        for number, text in enumerate(texts)
    ]
    return Exposition(page + (merger.text() or "\n")), dropped


def client_page(observed: float) -> str:
    """What a program with Prometheus' own client says, vLLM for instance."""
    registry = CollectorRegistry()
    Histogram("vllm:ttft", 'Time "to" \\ first', ["engine"], registry=registry).labels("0").observe(
        observed
    )
    Counter("vllm:tokens", "Tokens", ["model_name"], registry=registry).labels('a"\\b\nc').inc(7)
    Gauge("vllm:running", "Requests\nrunning", registry=registry).set(float("nan"))
    Summary("process_pause", "Pauses", registry=registry).observe(2.5)
    return generate_latest(registry).decode()


def test_families_of_all_replicas_stand_together() -> None:
    page, dropped = merge(client_page(0.2), client_page(30))
    assert dropped == [0, 0]
    assert page.family("vllm:ttft").type == "histogram"
    assert page.family("vllm:tokens").type == "counter"
    assert page.family("process_pause").type == "summary"
    assert page.family("vllm:ttft").documentation == 'Time "to" \\ first'
    assert page.family("vllm:running").documentation == "Requests\nrunning"
    for number, observed in enumerate((0.2, 30)):
        of = {"model": "m", "replica": f"m-{number}"}
        assert page.value("vllm:ttft_sum", **of, engine="0") == observed
        assert page.value("vllm:tokens_total", **of, model_name='a"\\b\nc') == 7
        assert page.value("process_pause_count", **of) == 1


def test_an_own_label_of_that_name_is_kept_as_exported() -> None:
    page, _ = merge('a{model="inner",x="1"} 5\n')
    assert page.value("a", model="m", replica="m-0", exported_model="inner", x="1") == 5
    _, (dropped,) = merge('a{model="inner",exported_model="again"} 5\n')
    assert dropped == 1


@pytest.mark.parametrize(
    "line",
    [
        "no_value",
        "two words here",
        "1name 5",
        'a{x="1} 5',
        'a{x="\\q"} 5',
        'a{x="1",x="2"} 5',
        "a{x=1} 5",
        "a{x='1'} 5",
        "a 0x10",
        "a 1_000",
        "a five",
        "a 5 1.5",
        "a 5 6 7",
        "a\ufffd 5",
        "<html>",
        'a{x="1"}',
        "{} 5",
    ],
)
def test_a_bad_line_costs_itself_alone(line: str) -> None:
    page, (dropped,) = merge(f"before 1\n{line}\nafter 2\n")
    assert dropped == 1
    assert {name for name, _ in page.values} == {"before", "after"}


def test_what_is_unusual_but_allowed() -> None:
    text = (
        'a { x = "1" , y="2" , } +5.5e-3 1700000000000\r\n'
        "\tb\t.5 -1\n"
        "c -nan\n"  # as C prints 0/0
        "d -Inf\n"
        "e{} 5\n"
        "# a comment\n"
        "#\n"
        "\n"
        "last 1"
    )
    page, (dropped,) = merge(text)
    assert dropped == 0
    of = {"model": "m", "replica": "m-0"}
    assert page.value("a", **of, x="1", y="2") == 0.0055
    assert page.value("b", **of) == 0.5
    assert page.value("c", **of) != page.value("c", **of)
    assert page.value("d", **of) == float("-inf")
    assert page.value("e", **of) == 5
    assert page.value("last", **of) == 1
    assert "NaN" in page.text
    assert "1700000000000" in page.text


def test_a_series_that_comes_twice_comes_once() -> None:
    _, (dropped,) = merge('a{x="1"} 1\na{x="2"} 2\na{x="1"} 3\n')
    assert dropped == 1


def test_a_family_of_another_kind_is_left_out() -> None:
    page, dropped = merge(
        "# TYPE a gauge\na 1\n# TYPE b_total counter\nb_total 1\n",
        "# TYPE a counter\na 2\n# TYPE b_total counter\nb_total 2\n",
    )
    assert dropped == [0, 2]
    assert page.labels("a") == [{"model": "m", "replica": "m-0"}]
    assert len(page.labels("b_total")) == 2


@pytest.mark.parametrize("first", ["histogram", "gauge"])
def test_names_within_a_histogram_are_its_own(first: str) -> None:
    histogram = '# TYPE a histogram\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n'
    gauge = "# TYPE a_count gauge\na_count 5\n"
    texts = (histogram, gauge) if first == "histogram" else (gauge, histogram)
    page, dropped = merge(*texts)
    assert dropped[0] == 0
    assert dropped[1] > 0
    assert {x["replica"] for x in page.labels("a_count")} == {"m-0"}
    _, (together,) = merge("".join(texts))
    assert together > 0


def test_names_of_the_page_are_taken() -> None:
    page = "# HELP yibu_x X.\n# TYPE yibu_x histogram\nyibu_x_count 1\n"
    text = "# TYPE yibu_x counter\nyibu_x 2\nyibu_x_count 2\nother 1\n"
    merged, (dropped,) = merge(text, page=page)
    assert dropped == 3
    assert {name for name, _ in merged.values} == {"yibu_x_count", "other"}


def test_a_family_that_is_split_or_typed_late() -> None:
    page, (dropped,) = merge("a 1\nb 1\n# TYPE a gauge\na{x='1'} 2\n# TYPE b gauge\n")
    assert dropped == 3
    assert page.family("a").type == "unknown"
    page, (dropped,) = merge('# TYPE a gauge\na{x="1"} 1\nb 1\na{x="2"} 1\n')
    assert dropped == 0
    assert len(page.labels("a")) == 2


def test_a_help_that_cannot_be_read_is_left_out() -> None:
    page, _ = merge("# HELP a broken \\q\n# TYPE a gauge\na 1\n")
    assert page.family("a").documentation == ""


def test_an_endless_exposition_is_refused_whole() -> None:
    merger = Merger()
    with pytest.raises(TooLongError):
        merger.add("a 1\n" * (MAX_LINES + 1), {})
    assert merger.text() == ""


LINES = st.one_of(
    st.text(max_size=40),
    st.builds(
        '{}{{{}="{}"}} {}'.format,
        st.sampled_from(["a", "a_sum", "a_count", "b:c", "9"]),
        st.sampled_from(["x", "le", "model", "replica", "exported_model"]),
        st.text(max_size=5),
        st.sampled_from(["1", "-nan", "Inf", "1e400", "x", "5 7"]),
    ),
    st.builds(
        "# {} {} {}".format,
        st.sampled_from(["HELP", "TYPE"]),
        st.sampled_from(["a", "b:c", "a_count"]),
        st.sampled_from(["gauge", "counter", "histogram", "summary", "untyped", "\\", "info"]),
    ),
)


@given(st.lists(st.lists(LINES, max_size=12), max_size=3))
def test_whatever_engines_say_the_page_can_be_read(engines: list[list[str]]) -> None:
    merge(*("\n".join(lines) for lines in engines))

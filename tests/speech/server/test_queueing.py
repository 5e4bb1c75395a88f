"""The order of segments: fair between requests, batched by length, nothing lost."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy", reason="run with a speech environment's Python")

from hypothesis import given
from hypothesis import strategies as st

from yibu.speech.queueing import FairQueue

LONG, SHORT, OTHER = 1, 2, 3


def filled(flow: int, count: int, seconds: float) -> FairQueue[tuple[int, int]]:
    queue: FairQueue[tuple[int, int]] = FairQueue()
    for number in range(count):
        queue.push(flow, seconds, (flow, number))
    return queue


def test_a_short_request_goes_next_however_much_a_long_one_has_waiting() -> None:
    queue = filled(LONG, 500, 15.0)
    for _ in range(100):
        assert queue.take(15.0)[0][0] == LONG
    queue.push(SHORT, 2.0, (SHORT, 0))
    order = [queue.take(15.0)[0][0] for _ in range(2)]
    assert SHORT in order


def test_a_stream_of_short_requests_does_not_starve_a_long_one() -> None:
    queue = filled(LONG, 10, 15.0)
    served = []
    for flow in range(100, 300):
        queue.push(flow, 2.0, (flow, 0))
        served.append(queue.take(2.0)[0][0])
    # each turn of the long one leaves one more clip waiting, and its share is one of them all
    assert served.count(LONG) >= 5


def test_two_long_requests_share_evenly() -> None:
    queue = filled(LONG, 100, 10.0)
    for number in range(200):
        queue.push(OTHER, 5.0, (OTHER, number))
    taken = [queue.take(0.0)[0][0] for _ in range(60)]
    seconds = {LONG: taken.count(LONG) * 10.0, OTHER: taken.count(OTHER) * 5.0}
    assert abs(seconds[LONG] - seconds[OTHER]) <= 10.0


def test_a_batch_joins_similar_lengths_of_all_requests() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, 10.0, "a")
    queue.push(2, 9.0, "b")
    queue.push(3, 2.0, "short")
    queue.push(4, 12.0, "c")
    assert sorted(queue.take(100.0)) == ["a", "b", "c"]
    assert queue.take(100.0) == ["short"]


def test_padding_counts_in_a_batch() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, 10.0, "a")
    queue.push(2, 7.0, "b")
    queue.push(3, 7.0, "c")
    assert queue.take(25.0) == ["a", "b"]


def test_a_dropped_request_leaves_nothing() -> None:
    queue = filled(LONG, 5, 10.0)
    queue.push(SHORT, 2.0, (SHORT, 0))
    queue.drop(LONG)
    assert queue.seconds == pytest.approx(2.0)
    assert queue.take(100.0) == [(SHORT, 0)]
    assert queue.take(100.0) == []
    queue.drop(77)


REQUESTS = st.lists(
    st.tuples(st.integers(0, 6), st.floats(0.1, 30.0, allow_nan=False)), max_size=60
)


@given(REQUESTS, st.floats(0.0, 120.0, allow_nan=False))
def test_everything_comes_out_once_and_batches_keep_their_bounds(
    requests: list[tuple[int, float]], room: float
) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, (flow, seconds) in enumerate(requests):
        queue.push(flow, seconds, number)
    assert len(queue) == len(requests)
    out: list[int] = []
    while batch := queue.take(room):
        lengths = [requests[number][1] for number in batch]
        assert len(batch) == 1 or max(lengths) * len(batch) <= room + 1e-6
        assert min(lengths) >= 0.6 * max(lengths) - 1e-9
        out += batch
    assert sorted(out) == list(range(len(requests)))
    assert queue.seconds == pytest.approx(0.0, abs=1e-6)

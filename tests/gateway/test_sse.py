"""The reader of server-sent events, against the official client's decoder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yibu.gateway.answers.sse import MAX_EVENT_BYTES, EventReader, make_event, parse_event
from yibu.upstream.connection import UpstreamError

PIECES = st.sampled_from(
    [b"data", b"data:", b"data: ", b"data:  x", b"event: a", b"event:", b"id: 1", b": note", b"retry: 5",
     b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"x", b" ", b":", b"{}", b"[DONE]",
     "易".encode(), b'data: {"a":1}\n\n']
)  # fmt: skip


def read(whole: bytes, cuts: list[int]) -> list[tuple[bytes, bytes]]:
    reader = EventReader()
    blocks: list[bytes] = []
    start = 0
    for cut in [*sorted(cuts), len(whole)]:
        blocks += reader.blocks(whole[start:cut])
        start = max(start, cut)
    events = (parse_event(block) for block in blocks)
    return [(name, data) for name, data in events if data is not None]


def expected(whole: bytes) -> list[bytes]:
    """The data of each event by OpenAI's own decoder, but for two things that the standard has
    otherwise: it dispatches events that have no data, and drops those with an empty line of it."""
    from openai._streaming import SSEDecoder

    decoder = SSEDecoder()
    events = []
    has_data = False
    for line in whole.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        has_data |= line == "data" or line.startswith("data:")
        event = decoder.decode(line)
        if line == "":
            if has_data:
                events.append(event.data.encode() if event is not None else b"")
            has_data = False
    return events


@given(st.lists(PIECES, max_size=25), st.lists(st.integers(0, 120), max_size=8))
def test_any_stream_in_any_pieces(pieces: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(pieces)
    if whole.endswith(b"\r"):
        whole += b"x"  # whether an LF belongs to it is not known yet
    assert [data for _, data in read(whole, cuts)] == expected(whole)


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_line_ends_fields_and_a_byte_order_mark(newline: bytes, size: int) -> None:
    lines = [
        b"\xef\xbb\xbf: note",
        b"id: 7",
        b"event: done",
        b"data: a",
        b"data:b",
        b"",
        b"data",
        b"",
        b"",
    ]
    whole = newline.join(lines) + b"data: last" + newline + newline
    found = read(whole, list(range(size, len(whole), size)))
    assert found == [(b"done", b"a\nb"), (b"", b""), (b"", b"last")]


def test_bytes_that_are_not_utf_8_become_the_replacement_character() -> None:
    whole = b"data: a\xffb\xe6\x98\n\ndata: \xe6\x98\x93\n\n"
    found = read(whole, list(range(len(whole))))
    assert found == [(b"", "a\ufffdb\ufffd".encode()), (b"", "易".encode())]


def test_an_event_written_is_the_event_read() -> None:
    for name, data in ((b"", b"{}"), (b"a", b"x\ny"), (b"", b"")):
        assert read(make_event(data, name), []) == [(name, data)]


def test_time_is_linear_in_the_bytes_however_they_come() -> None:
    """A reader that joins what it holds at each piece copies 500 GB here, and runs out of time."""
    reader = EventReader()
    reader.blocks(b"data: ")
    for _ in range(MAX_EVENT_BYTES // 64 // 2):
        assert reader.blocks(b"x" * 64) == []
    (block,) = reader.blocks(b"\n\n")
    assert len(block) == 6 + MAX_EVENT_BYTES // 2


def test_an_endless_event_is_given_up() -> None:
    reader = EventReader()
    for _ in range(MAX_EVENT_BYTES // 2**20):
        assert reader.blocks(b"x" * 2**20) == []
    with pytest.raises(UpstreamError, match="longer than"):
        reader.blocks(b"x")

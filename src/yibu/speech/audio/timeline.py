"""The position of a track's samples in the time that a player shows.

A track may begin after the file does, and its time stamps may leave holes: a muted caller, two
recordings joined. Both are silence to who listens. Time stamps that go back (a second recording
counts from zero again) or that only one frame has are not followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import Any

KEPT = frozenset({"mov", "matroska", "ogg", "mpegts", "mpeg", "flv", "asf", "nut"})
"""Containers whose packets have time stamps of their own, not ones counted from their samples."""
RESTARTING = frozenset({"ogg", "mpegts", "mpeg"})
"""Containers whose clock may restart in the middle, and whose headers state no length."""

_HOLE = 0.1
"""Seconds: less is rounding, or a clock that drifts (what ffmpeg's aresample takes for a hole)."""
_LATE = 0.01
_LONGEST_HOLE = 3600.0
"""Seconds, where no header states the file's length: a longer jump is another clock, no hole."""


def spaced(
    frames: Iterable[Any], begin: float | None, end: float | None
) -> Iterator[tuple[float, Any]]:
    """Each frame with the seconds of silence in front of it. ``begin`` is the time stamp with which
    the other tracks begin, ``end`` that with which the file does; None where nothing says so."""
    expected: float | None = None
    for frame, following in pairwise(chain(frames, [None])):
        at, gap = frame.time, 0.0
        length = frame.samples / frame.sample_rate
        if at is not None and expected is None:
            late = at - begin if begin is not None else 0.0
            gap = late if _LATE < late <= _LONGEST_HOLE else 0.0
            expected = at
        elif at is not None and expected is not None and abs(at - expected) > _HOLE:
            after = following.time if following is not None else None
            if after is None or abs(after - expected - length) > _HOLE:  # it does not go back
                hole = at - expected
                plausible = hole <= _LONGEST_HOLE if end is None else at <= end + 1.0
                gap = hole if hole > 0 and plausible else 0.0
                expected = at
        if expected is not None:
            expected += length
        yield gap, frame


def begin_of_others(container: Any, stream: Any) -> float | None:
    """The first time stamp of the file's other tracks of sound or moving pictures, in seconds."""
    from av.stream import Disposition

    starts = [
        float(other.start_time * other.time_base)
        for other in container.streams
        if other.index != stream.index
        and other.type in {"audio", "video"}
        and other.start_time is not None
        and not other.disposition & (Disposition.attached_pic | Disposition.still_image)
    ]
    return min(starts, default=None)

"""Who may start beside whom on a GPU."""

from __future__ import annotations

import pytest

from yibu.node.scheduler.starts import Start, may_start


def _start(name: str, *gpus: int, memory: int = 1, alone: bool = True) -> Start:
    return Start(name, frozenset(gpus), memory, alone)


@pytest.mark.parametrize(
    ("waiting", "starting", "expected"),
    [
        # On the CPU, and on GPUs of their own, all at once.
        ([_start("a"), _start("b")], [], "ab"),
        ([_start("a", 0), _start("b", 1)], [], "ab"),
        # On one GPU the largest first, and the next when it is done.
        ([_start("a", 0), _start("b", 0, memory=2)], [], "b"),
        ([_start("a", 0)], [_start("b", 0)], ""),
        # One that measures nothing may not disturb one that does, in either order.
        ([_start("a", 0, alone=False)], [_start("b", 0)], ""),
        ([_start("a", 0)], [_start("b", 0, alone=False)], ""),
        ([_start("a", 0, alone=False), _start("b", 0, alone=False)], [], "ab"),
        # A large one that waits for one of its two GPUs is not overtaken on the other.
        ([_start("a", 0, 1, memory=9), _start("b", 1)], [_start("c", 0)], ""),
        ([_start("a", 0, 1), _start("b", 2)], [_start("c", 0)], "b"),
    ],
)
def test_who_may_start(waiting: list[Start], starting: list[Start], expected: str) -> None:
    assert "".join(sorted(start.replica for start in may_start(waiting, starting))) == expected

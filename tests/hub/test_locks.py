"""Lock files go with the last that held them, and no lock is ever on a file that is gone."""

from __future__ import annotations

import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.polling import until
from tests.support.zygote import ZYGOTE
from yibu.errors import PullCancelledError
from yibu.hub.locks import exclusive, lease, try_exclusive


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "model.lock"


def test_the_file_goes_with_the_lock(path: Path) -> None:
    with exclusive(path, threading.Event()) as waited:
        assert path.exists()
        assert not waited
    assert not path.exists()
    with try_exclusive(path) as free:
        assert free
        assert path.exists()
    assert not path.exists()


def test_the_file_goes_with_the_last_lease(path: Path) -> None:
    with lease(path):
        with lease(path):
            pass
        with try_exclusive(path) as free:
            assert not free
        assert path.exists()
    assert not path.exists()


def test_who_waited_holds_the_new_file(path: Path) -> None:
    first = exclusive(path, threading.Event())
    first.__enter__()
    waiting, inside, leave = threading.Event(), threading.Event(), threading.Event()

    def second() -> None:
        with exclusive(path, threading.Event(), waiting.set) as waited:
            assert waited
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=second)
    thread.start()
    until(waiting.is_set)
    first.__exit__(None, None, None)
    until(inside.is_set)
    with try_exclusive(path) as free:
        assert not free
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(PullCancelledError):
        exclusive(path, cancelled).__enter__()
    leave.set()
    thread.join(60)
    assert not path.exists()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who waits")
def test_a_lease_that_waited_for_a_remover_is_on_the_new_file(path: Path) -> None:
    held = ExitStack()
    with exclusive(path, threading.Event()):
        old = f":{path.stat().st_ino} "
        thread = threading.Thread(target=held.enter_context, args=[lease(path)])
        thread.start()
        until(lambda: any("->" in line and old in line for line in locks_of_the_machine()))
    thread.join(60)
    assert path.exists()
    with try_exclusive(path) as free:
        assert not free
    held.close()
    assert not path.exists()


def locks_of_the_machine() -> list[str]:
    return Path("/proc/locks").read_text().splitlines()


def test_many_processes_are_never_inside_at_once(path: Path) -> None:
    path.parent.mkdir()
    words = ["tests.fakes.locker", str(path), "120"]
    how: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True}
    running = [ZYGOTE.module(*words, **how) for _ in range(6)]
    said = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 6, said
    assert list(path.parent.iterdir()) == []

"""Rotation under a writer that never closes its file, tail and follow."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.node.support import fake_model
from tests.support.polling import eventually
from yibu.config.names import replica_id
from yibu.node import logs
from yibu.node.fleet.fleet import Fleet
from yibu.node.logs import LogRotation, generation
from yibu.paths import Paths

SMALL = LogRotation(max_bytes=1000, generations=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "smol-0.log"


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_rotation_keeps_the_writer_and_bounds_the_total(path: Path) -> None:
    writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(300):
        os.write(writer, f"{number:09}\n".encode())
        logs.rotate_if_large(path, SMALL)
    os.close(writer)
    total = sum(file.stat().st_size for file in path.parent.iterdir())
    assert total <= SMALL.max_bytes * (SMALL.generations + 1) + 30
    assert {file.name for file in path.parent.iterdir()} == {
        "smol-0.log",
        "smol-0.log.1",
        "smol-0.log.2",
    }
    lines = logs.tail(path, 1000)
    assert lines == [f"{number:09}" for number in range(300 - len(lines), 300)]
    assert generation(path, 1).stat().st_mode & 0o777 == 0o600


def test_a_flood_between_two_looks_is_cut_to_its_end_and_the_loss_counted(path: Path) -> None:
    lines = [f"{number:09}" for number in range(500)]
    write(path, "\n".join(lines) + "\n")
    assert logs.rotate_if_large(path, SMALL)
    first, *kept = logs.tail(path, 1000)
    assert kept == lines[-len(kept) :]
    assert first == (
        f"[yibu: {10 * (500 - len(kept))} bytes were written faster than logs are kept, and dropped]"
    )
    assert 900 < generation(path, 1).stat().st_size <= SMALL.max_bytes + len(first)


@pytest.mark.parametrize("seen", [0, 2000, 4500])
def test_a_follower_goes_on_in_what_a_flood_left(path: Path, seen: int) -> None:
    """It has read ``seen`` bytes when the flood comes, of which 1000 stay."""
    lines = [f"{number:09}" for number in range(500)]
    text = "\n".join(lines) + "\n"
    write(path, text[:seen])
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            write(path, text[seen:])
            logs.rotate_if_large(path, SMALL)
            write(path, "after\n")
        return looks == 3

    got = list(followed(path, logs.Position.beginning(path), stop))
    before = seen // 10
    assert got[:before] == lines[:before]
    rest = got[before:]
    if seen < 4100:
        assert "dropped" in rest.pop(0)
    assert rest[-1] == "after"
    assert rest[:-1] == lines[-(len(rest) - 1) :]
    assert len(rest) > 50 - (before - 400 if before > 400 else 0) - 2, "no kept line is lost"


def followed(path: Path, start: logs.Position, stop: Callable[[], bool]) -> Iterator[str]:
    """Lines as they are written, until ``stop()``."""
    follower, ending = logs.Follower(path, start), False
    while not ending:
        ending = stop()  # asked before reading: what was written until then is still given
        yield from follower.lines()
        time.sleep(0.0005)


def test_a_small_log_is_left_alone(path: Path) -> None:
    assert not logs.rotate_if_large(path, SMALL), "there is none yet"
    write(path, "short\n")
    assert not logs.rotate_if_large(path, SMALL)


@given(text=st.text(st.sampled_from("ab\n"), max_size=200), n=st.integers(0, 30))
def test_tail_gives_the_last_lines(tmp_path_factory: pytest.TempPathFactory, text: str, n: int):
    path = tmp_path_factory.mktemp("tail") / "x.log"
    write(path, text)
    assert logs.tail(path, n) == (text.splitlines()[-n:] if n else [])


def test_tail_of_long_lines_and_other_bytes(path: Path) -> None:
    path.write_bytes(b"x" * 200_000 + b"\n" + "模型".encode() + b"\n\xff\n")
    assert logs.tail(path, 2) == ["模型", "�"]
    assert len(logs.tail(path, 3)[0]) == 200_000
    with pytest.raises(FileNotFoundError):
        logs.tail(path.with_name("none.log"), 3)


def test_follow_across_rotations_loses_and_repeats_nothing(path: Path) -> None:
    count, done = 3000, threading.Event()

    def engine() -> None:
        writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in range(count):
            os.write(writer, f"line {number}\n".encode())
            if number % 100 == 99:  # rotated by the writer itself, so that nothing falls between
                logs.rotate_if_large(path, LogRotation(1000, 100))
        os.close(writer)
        done.set()

    thread = threading.Thread(target=engine)

    def stop() -> bool:
        if thread.ident is None:  # it begins when the follower has noted its place
            thread.start()
        return done.is_set()

    path.touch()
    lines = list(followed(path, logs.Position.now(path), stop))
    thread.join()
    assert lines == [f"line {number}" for number in range(count)]


def test_follow_begins_at_the_end_and_waits_for_a_file(path: Path) -> None:
    lines: list[str] = []
    done = threading.Event()
    started = threading.Event()

    def stop() -> bool:
        started.set()
        return done.is_set()

    def listen() -> None:
        lines.extend(followed(path, logs.Position.now(path), stop))

    thread = threading.Thread(target=listen)
    thread.start()
    assert started.wait(60)
    write(path, "first\nsec")
    write(path, "ond\nunfinished")
    done.set()
    thread.join(60)
    assert lines == ["first", "second"]
    assert logs.Follower(path, logs.Position.now(path)).lines() == []


def test_a_full_disk_empties_the_log_rather_than_growing_it(path: Path) -> None:
    for number in (0, 1, 2):
        write(generation(path, number), "x" * 5000)
    code = (
        "import resource, signal, sys; from pathlib import Path; from yibu.node import logs\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "sys.exit(not logs.rotate_if_large(Path(sys.argv[1]), logs.LogRotation(1000, 2)))\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no room to keep the log" in done.stderr
    assert path.stat().st_size == 0


def test_reading_from_an_offset(path: Path) -> None:
    assert logs.read_from(path, 0, 100) == ""
    write(path, "old\nnew\n")
    assert logs.read_from(path, 4, 100) == "new\n"
    assert logs.read_from(path, 0, 4) == "new\n"
    assert logs.read_from(path, 99, 100) == "old\nnew\n", "it was rotated since"


async def test_an_engine_that_floods_its_log_does_not_fill_the_disk(
    make_fleet: Callable[..., Fleet], paths: Paths
) -> None:
    rotation = LogRotation(max_bytes=200_000, generations=4, every=0.02)
    async with make_fleet(rotation=rotation) as fleet:
        await fleet.up(fake_model("loud", "--flood-mib", "40"))
        log = paths.model_log(replica_id("loud", 0))

        def over() -> bool:
            return "flood over" in logs.tail(log, 5) and not rotation.due(log)

        await eventually(over, "the flood is over and its log rotated")
        files = sorted(log.parent.glob(f"{log.name}*"))
        assert 2 <= len(files) <= 5
        # Beside the line that counts what was dropped.
        most = rotation.max_bytes + 100
        assert all(file.stat().st_size <= most for file in files)
        assert "dropped" in "".join(file.read_text() for file in files)

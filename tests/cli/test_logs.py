"""`yibu logs` over files as engines leave them: no node runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.polling import until
from yibu.cli import logs
from yibu.errors import UsageError
from yibu.management.context import Context
from yibu.paths import Paths

NODE = """\
2026-11-28 15:00:00,000 INFO yibu.node node 1 serves http://127.0.0.1:8000
2026-11-28 15:00:02,000 ERROR yibu.node smol-0 starting (it crashed)
2026-11-28 15:00:09,000 INFO yibu.node smol-0 ready
"""
SMOL = """\
no time yet
2026-11-28 15:00:01,000 INFO smol loads
2026-11-28 15:00:02,500 ERROR smol crashed
Traceback (most recent call last):
  File "x.py", line 1
RuntimeError: what
2026-11-28 15:00:08,000 INFO smol loads again
"""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    env = {"YIBU_HOME": str(tmp_path), "HOME": str(tmp_path)}
    paths = Paths.from_env(env)
    paths.make()
    paths.node_log.write_text(NODE)
    (paths.logs / "smol-0.log.1").write_text(SMOL[: SMOL.index("Traceback")])
    (paths.logs / "smol-0.log").write_text(SMOL[SMOL.index("Traceback") :])
    return Context(env, paths, tmp_path)


def shown(
    context: Context,
    capsys: pytest.CaptureFixture[str],
    *models: str,
    since: str | None = None,
    level: str | None = None,
    grep: str | None = None,
    lines: int | None = None,
    as_json: bool = False,
) -> list[str]:
    asked = logs.wanted(since, level, grep)  # type: ignore[arg-type]
    logs.show(context, models, asked, follow=False, lines=lines, as_json=as_json)
    return capsys.readouterr().out.splitlines()


def test_all_logs_stand_in_the_order_of_their_times(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(context, capsys)
    assert [line.partition(" | ")[0] for line in found] == [
        *("node", "smol-0", "smol-0", "node", *["smol-0"] * 5, "node"),
    ]
    assert found[1].endswith("no time yet")
    assert found[5].endswith("Traceback (most recent call last):")
    assert shown(context, capsys, lines=2) == found[-2:]
    # One log alone has no marks.
    assert shown(context, capsys, "smol")[1] == "2026-11-28 15:00:01,000 INFO smol loads"


def test_level_time_and_pattern(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    worse = shown(context, capsys, level="warning")
    assert [line.rpartition(" | ")[2][:10] for line in worse] == [
        *("2026-11-28", "2026-11-28", "Traceback ", '  File "x.', "RuntimeErr"),
    ]
    later = shown(context, capsys, since="2026-11-28T15:00:03")
    assert len(later) == 2
    assert shown(context, capsys, "smol", grep=r"loads( again)?$", lines=1) == [
        "2026-11-28 15:00:08,000 INFO smol loads again"
    ]


def test_a_span_counts_back_from_now(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    def stamp(ago: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S,000", time.localtime(time.time() - ago))

    file = context.paths.logs / "new-0.log"
    file.write_text(f"{stamp(7200)} INFO a old\n{stamp(60)} INFO a new\n")
    assert [line[-3:] for line in shown(context, capsys, "new", since="1h")] == ["new"]
    assert len(shown(context, capsys, "new", since="3h")) == 2
    # A log without times is shown whole, if it was written since.
    (context.paths.logs / "plain-0.log").write_text("one\ntwo\n")
    assert shown(context, capsys, "plain", since="10m") == ["one", "two"]
    os.utime(context.paths.logs / "plain-0.log", (1, 1))
    assert shown(context, capsys, "plain", since="10m") == []


def test_json_lines(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in shown(context, capsys, as_json=True, level="error")]
    assert {row["log"] for row in rows} == {"node", "smol-0"}
    assert all(set(row) == {"version", "log", "time", "level", "text"} for row in rows)
    assert datetime.fromisoformat(rows[0]["time"]).tzinfo is not None


@pytest.mark.parametrize(
    ("options", "word"),
    [({"since": "yesterday"}, "10m"), ({"grep": "("}, "regular expression")],
)
def test_what_cannot_be_read_is_said(
    context: Context, capsys: pytest.CaptureFixture[str], options: dict[str, str], word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        shown(context, capsys, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"node, smol-0"):
        shown(context, capsys, "other")


def test_following_goes_on_over_rotations_and_takes_new_logs(context: Context) -> None:
    directory = context.paths.logs
    follower = subprocess.Popen(
        [sys.executable, "-c", "from yibu.cli.main import main; main()", "logs", "-f", "-n", "0",
         "--level", "error"],
        env={**os.environ, **context.env}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lines.extend, args=(follower.stdout,))
    reader.start()

    def write(name: str, text: str) -> None:
        with (directory / name).open("a") as file:
            file.write(text)

    def shown(text: str) -> str | None:
        return next((line for line in lines if text in line), None)

    def begun() -> bool:
        # What was written before it began it may not have seen.
        write("smol-0.log", "ERROR begin\n")
        return shown("begin") is not None

    try:
        until(begun, "a followed line")
        (directory / "smol-0.log").rename(directory / "smol-0.log.1")
        write("smol-0.log", "INFO left out\nERROR after a rotation\n")
        until(lambda: shown("after a rotation"))
        write("late-0.log", "ERROR of a model that came later\n")
        assert until(lambda: shown("came later")) == "late-0 | ERROR of a model that came later\n"
    finally:
        follower.send_signal(signal.SIGINT)
        code = follower.wait(60)
        reader.join()
        follower.stdout.close()
    assert code == 130
    assert shown("left out") is None

"""Runs `yibu` commands, each in a fork of one process that has imported everything already.

stdin has ``{"cases": [{"argv", "condition", "env", "cwd"}]}``; stdout gets one JSON line a case:
``{"code", "out", "err"}``. A condition is what :func:`arrange` knows.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pty
import shutil
import sys
import tempfile
import termios
from pathlib import Path
from typing import Any

from yibu.cli.main import main
from yibu.cli.main import run as run_verb

CLOSED = {
    "stdin closed": (0,),
    "stdout closed": (1,),
    "stderr closed": (2,),
    "all closed": (0, 1, 2),
}
GONE = {"reader of stdout gone": 1, "reader of stderr gone": 2}
FULL = {"stdout on a full disk": 1, "stderr on a full disk": 2}
TERMINALS = {"40 columns": "xterm-256color", "dumb terminal": "dumb", "terminal": "xterm-256color"}
ENCODINGS = {"ascii": "ascii", "gbk": "gbk", "latin-1": "latin-1"}


def arrange(condition: str, encoding: str = "utf-8") -> None:
    """Bring a forked process into the state in which Python would have started there."""
    for descriptor in CLOSED.get(condition, ()):
        os.close(descriptor)
    if condition in GONE:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, GONE[condition])
        os.close(writer)
    if condition in FULL:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, FULL[condition])
        os.close(full)
    if condition == "working directory removed":
        there = tempfile.mkdtemp()
        os.chdir(there)
        shutil.rmtree(there)
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        try:
            raw: Any = io.FileIO(descriptor, "rb" if name == "stdin" else "wb", closefd=False)
        except OSError:
            setattr(sys, name, None)
            continue
        buffer: Any = io.BufferedReader(raw) if name == "stdin" else io.BufferedWriter(raw)
        text = io.TextIOWrapper(buffer, encoding=ENCODINGS.get(condition, encoding))
        setattr(sys, name, text)


def child(case: dict[str, Any], files: list[Path]) -> None:
    condition = case["condition"]
    os.chdir(case["cwd"])
    os.environ.clear()
    os.environ.update(case["env"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.closerange(3, 64)
    arrange(condition)
    main(case["argv"])


def on_terminal(case: dict[str, Any]) -> dict[str, Any]:
    """The same with a terminal for all three streams."""
    condition = case["condition"]
    columns = 40 if condition == "40 columns" else 80
    pid, terminal = pty.fork()
    if pid == 0:
        termios.tcsetwinsize(0, (24, columns))
        os.environ.clear()
        os.environ.update(case["env"], TERM=TERMINALS[condition])
        os.chdir(case["cwd"])
        end(lambda: (arrange(condition), main(case["argv"])))
    said = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        said += piece
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return {"code": os.waitstatus_to_exitcode(status), "out": "", "err": said.decode()}


def end(work: Any) -> None:
    """Leave a fork as Python would leave: with the exit code, or a traceback."""
    code: Any = 1
    try:
        work()
    except SystemExit as done:
        code = done.code
    except BaseException:  # noqa: BLE001 - what this program looks for
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # noqa: BLE001 - as Python's own exit has it
                code = 120
        os._exit(code or 0)


def run(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    if case["condition"] in TERMINALS:
        return on_terminal(case)
    files = [folder / "out", folder / "err"]
    for file in files:
        file.write_bytes(b"")
    pid = os.fork()
    if pid == 0:
        end(lambda: child(case, files))
    _, status = os.waitpid(pid, 0)
    out, err = (file.read_bytes().decode(errors="replace") for file in files)
    return {"code": os.waitstatus_to_exitcode(status), "out": out, "err": err}


def import_all(cases: list[dict[str, Any]], folder: Path) -> None:
    """Run each command once, so that no fork has to import what it needs."""
    os.environ.update(YIBU_HOME=str(folder / "home"), YIBU_OFFLINE="1")
    os.chdir(cases[0]["cwd"])
    nowhere = (folder / "said").open("w")
    with nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        for words in dict.fromkeys(tuple(case["argv"]) for case in cases):
            if words[:1] != ("up",):  # which starts a node's process
                run_verb(list(words))
    gc.collect()
    gc.freeze()  # a fork's own collections would copy every page
    gc.disable()


if __name__ == "__main__":
    cases = json.load(sys.stdin)["cases"]
    with tempfile.TemporaryDirectory() as folder:
        import_all(cases, Path(folder))
        for case in cases:
            print(json.dumps(run(case, Path(folder))), flush=True)

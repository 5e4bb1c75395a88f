"""Why an engine failed, in words: known causes matched against its log.

An engine's own are tried first because they know more, then those that every program can meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from yibu.engines.logs import Cause, causes_of
from yibu.environments.libraries import how_to_install
from yibu.errors import TOLD, heard
from yibu.messages import filled, tr
from yibu.redaction import redact

_SIGILL = 4
_SIGKILL = 9
_SIGSEGV = 11
_SIGBUS = 7
_SHELL_SIGNAL_BASE = 128
_CONTEXT = 3
_MAX_LINES = 12


@dataclass(frozen=True, slots=True)
class Explanation:
    """A failure and its explanation."""

    cause: str
    """The cause's key, or ``"unknown"``."""
    message: str
    hint: str
    lines: tuple[str, ...]
    """The matching log lines, or the last ones; without secrets."""


GENERIC_CAUSES = causes_of("")
_BY_KEY = {cause.key: cause for cause in GENERIC_CAUSES}

_KILLED = (
    tr("The kernel killed the engine because the machine ran out of memory."),
    tr(
        "See the arithmetic: yibu plan {model}. Give it less context or parallel, or stop "
        "another model."
    ),
)


def explain(
    log_text: str,
    causes: Sequence[Cause],
    *,
    exit_code: int | None = None,
    oom_killed: bool = False,
) -> Explanation:
    """The most likely cause of a failure, from the end of the engine's log and its exit code.

    ``exit_code`` is negative for a signal, as ``subprocess`` has it (128 + n, as a shell has it,
    is understood). ``oom_killed``: the kernel's or cgroup's counter says so.
    """
    lines = [line.rstrip() for line in redact(log_text).splitlines() if line.strip()]
    signal_number = _signal(exit_code)
    if oom_killed and signal_number in (_SIGKILL, None):
        return Explanation("oom_killed", *_KILLED, tuple(lines[-_CONTEXT:]))
    for index, line in enumerate(lines):
        if TOLD in line and (error := heard(line)) is not None:
            near = tuple(lines[max(0, index - _CONTEXT) : index])
            return Explanation(error.cause, error.message, error.hint, near)
    # An engine's own are ordered, the telling ones first. Of what every program can meet the last line is
    # believed: a file that was not found and not needed stands above what ended the engine.
    if (match := next(_found(causes, lines), None)) is not None:
        return match[1]
    if (
        match := max(_found(GENERIC_CAUSES, lines), key=lambda found: found[0], default=None)
    ) is not None:
        return match[1]
    if signal_number == _SIGILL:
        return _plain(_BY_KEY["illegal_instruction"], lines)
    if signal_number is not None:
        return _by_signal(signal_number, lines)
    return Explanation(
        "unknown",
        tr("The engine ended, and its log names no cause that yibu knows.")
        if exit_code is None
        else tr(
            "The engine ended with code {code}, and its log names no cause that yibu knows.",
            code=exit_code,
        ),
        tr(
            "A command that puts its server in the background (&, nohup, docker run -d) has to keep it in "
            "the foreground; else read its last lines: yibu logs {model} -n 100."
        )
        if exit_code == 0
        else tr("Read its last lines: yibu logs {model} -n 100."),
        tuple(lines[-_MAX_LINES:]),
    )


def _found(causes: Sequence[Cause], lines: Sequence[str]) -> Iterator[tuple[int, Explanation]]:
    """The causes that the log names, in their order, each with the number of its line."""
    for cause in causes:
        if (match := _search(cause, lines)) is not None:
            yield match


def _search(cause: Cause, lines: Sequence[str]) -> tuple[int, Explanation] | None:
    """The last match of a cause's pattern: the number of its line, and the lines around it.

    Line by line, so that a pattern never reaches over two; the last, because engines retry.
    """
    for index in range(len(lines) - 1, -1, -1):
        if match := cause.pattern.search(lines[index]):
            groups = {
                name: " ".join((value or "").split()) for name, value in match.groupdict().items()
            }
            near = lines[max(0, index - _CONTEXT + 1) : index + 1]
            hint = filled(cause.hint, **groups)
            if cause.key == "missing_library" and (library := groups["library"]):
                hint = tr("Install it, {how_to_install}", how_to_install=how_to_install([library]))
            text = filled(cause.explanation, **groups)
            return index, Explanation(cause.key, text, hint, tuple(near))
    return None


def _plain(cause: Cause, lines: Sequence[str]) -> Explanation:
    return Explanation(cause.key, cause.explanation, cause.hint, tuple(lines[-_CONTEXT:]))


def _signal(exit_code: int | None) -> int | None:
    if exit_code is None:
        return None
    if exit_code < 0:
        return -exit_code
    number = exit_code - _SHELL_SIGNAL_BASE
    return number if 0 < number < 65 else None


def _by_signal(number: int, lines: Sequence[str]) -> Explanation:
    last = tuple(lines[-_MAX_LINES:])
    if number == _SIGKILL:
        return Explanation(
            "killed",
            tr("The engine was killed (SIGKILL), and not by yibu."),
            tr(
                "Most often the kernel does that for want of memory: dmesg | grep -i oom; "
                "then see yibu plan {model}."
            ),
            last,
        )
    if number in (_SIGSEGV, _SIGBUS):
        return Explanation(
            "crashed",
            tr("The engine crashed inside its own code (signal {number}).", number=number),
            tr(
                "If it comes again with the same request, report it to the engine's project; "
                "a truncated model file does this too: yibu verify."
            ),
            last,
        )
    return Explanation(
        "signal",
        tr("The engine was ended by signal {number}, and not by yibu.", number=number),
        tr("Read its last lines: yibu logs {model} -n 100."),
        last,
    )

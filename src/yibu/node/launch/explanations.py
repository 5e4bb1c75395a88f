"""Why an engine failed, in words: from its exit code, its log and what the kernel did."""

from __future__ import annotations

import re
import signal
import textwrap
from collections.abc import Sequence
from pathlib import Path

from yibu.errors import TOLD, EngineStartError
from yibu.messages import filled, tr
from yibu.node import logs
from yibu.node.launch.spec import Host, LaunchSpec, Life
from yibu.node.machine import oom, ports
from yibu.redaction import redact

_EXPLAINED_BYTES = 128 * 1024
_SHOWN_LINES = 12
_WORDS = 300
"""Characters of the log in a sentence."""
_TELLING = re.compile(r"(?i)error|exception|fail|fatal|panic|cannot|refused")


def start_error(
    host: Host,
    spec: LaunchSpec,
    life: Life,
    what: str,
    code: int | None,
    port: int,
    *,
    late: bool = False,
) -> EngineStartError:
    """The error of a start: first line the cause, then the log's last lines. The engine is gone.
    ``late``: it was ended because it was not ready in time."""
    cause, sentence, hint = _explained(host, spec, life, what, code)
    lines = logs.read_from(life.log, life.offset, _EXPLAINED_BYTES).splitlines()
    said = [line for line in lines if TOLD not in line][-_SHOWN_LINES:]
    if cause == "unknown" and not ports.is_free(port):
        cause = "port_in_use"
        sentence = tr("{what}: port {port} was taken by another process", what=what, port=port)
    elif cause == "unknown" and late:
        cause = "not_ready"
        hint = tr(
            "Read its last lines: yibu logs {model} -n 100. If it only needs longer: "
            "options.start_timeout: {seconds:g}",
            model=spec.model,
            seconds=2 * spec.plan.start_timeout,
        )
    elif cause == "unknown" and (words := _last_words(said)):
        sentence = tr("{what}; its log ends with: {words}", what=what, words=words)
    shown = "".join(f"\n  | {redact(line)}" for line in said)
    tail = (
        tr("last lines of {log}:{shown}", log=life.log, shown=shown)
        if shown
        else tr("nothing was written to {log}", log=life.log)
    )
    return EngineStartError(
        "{model}: {brief}\n  {tail}",
        model=spec.model,
        brief=tr("the engine {sentence}", sentence=sentence),
        tail=tail,
        hint=hint,
        cause=cause,
    )


def explain_exit(
    host: Host, spec: LaunchSpec, replica: str, life: Life, code: int | None
) -> EngineStartError:
    """Why a ready engine ended: its exit code, and what its log says."""
    cause, sentence, hint = _explained(host, spec, life, describe_exit(code), code)
    return EngineStartError(
        "{replica}: the engine {sentence}",
        replica=replica,
        sentence=sentence,
        hint=hint,
        cause="crash" if cause == "unknown" else cause,
    )


def _explained(
    host: Host, spec: LaunchSpec, life: Life, what: str, code: int | None
) -> tuple[str, str, str]:
    """(cause's key, a clause beginning with ``what``, hint), read from the log."""
    found = host.explain(
        spec.plan.engine,
        logs.read_from(life.log, life.offset, _EXPLAINED_BYTES),
        exit_code=code,
        oom_killed=oom.kills() > life.oom_kills,
    )
    cause, why, hint = found.cause, found.message, found.hint
    if cause == "unknown":
        silence = _silence_of(life.log)
        if silence is None:
            return cause, what, filled(hint, model=spec.model)
        cause, (why, hint) = "disk_full", silence
    return cause, tr("{what}: {why}", what=what, why=why), filled(hint, model=spec.model)


def _last_words(lines: Sequence[str]) -> str:
    """The last line that speaks of an error, else the last one: what a reader of the log would look
    for. Only of starts, before which the engine has seen no request: its callers read it too."""
    written = [line for line in map(str.strip, lines) if line]
    telling = [line for line in written if _TELLING.search(line)] or written
    return textwrap.shorten(redact(telling[-1]), _WORDS, placeholder=" …") if telling else ""


def describe_exit(code: int | None) -> str:
    """An exit code in words; nobody had asked the engine to end."""
    if code is None:
        return tr("ended (it had been adopted, so its exit code is not known)")
    if code == -signal.SIGKILL:
        return tr("was killed by SIGKILL, which yibu did not send (the kernel, out of memory?)")
    if code < 0:
        return tr("was ended by {code}", code=signal.Signals(-code).name)
    if code == 0:
        return tr("exited with code 0 though nobody asked it to")
    return tr("exited with code {code}", code=code)


def _silence_of(log: Path) -> tuple[str, str] | None:
    """Why nothing may stand in the log: a sentence and a hint. None where it can be written.
    Blocking."""
    if logs.has_room(log.parent):
        return None
    what = tr(
        "the disk with its log is full ({parent}), so that what it said is lost, and "
        "engines end when they cannot write",
        parent=log.parent,
    )
    return what, tr("Free some space there (yibu gc), then: yibu restart {model}")

"""Why an engine failed, in words: known causes held against its log.

The causes that every program can meet stand here; each engine adds its own, which are tried
first because they know more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from yibu.engines.base import Cause
from yibu.environments.libraries import how_to_install
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
    """A failure as it is shown to a person."""

    cause: str
    """The cause's key, or ``"unknown"``."""
    message: str
    hint: str
    lines: tuple[str, ...]
    """The log lines that say so, or the last ones; secrets are taken out."""


NCCL = Cause(
    "nccl",
    re.compile(r"NCCL error[^\n]*|ncclUnhandledCudaError|ncclSystemError"),
    tr("The GPUs cannot talk to each other (NCCL)."),
    tr(
        "See NCCL's own words with env: NCCL_DEBUG=INFO; often /dev/shm is too small "
        "(--shm-size=8g) or peer access is off (NCCL_P2P_DISABLE=1)."
    ),
)

REMOTE_CODE = Cause(
    "remote_code",
    re.compile(
        r"requires you to execute the configuration file|"
        r"consider setting `trust_remote_code=True`|contains custom code which must be executed"
    ),
    tr("The model brings Python code of its own, which is not run unless you say so."),
    tr("Read that code; if you trust it: options.trust_remote_code: true."),
)

CORRUPT_SAFETENSORS = Cause(
    "corrupt_model",
    re.compile(
        r"SafetensorError: (?P<reason>[^\n]+)|Error while deserializing header|"
        r"MetadataIncompleteBuffer"
    ),
    tr("A weights file is damaged or incomplete: {reason}."),
    tr("Check the files against the hub's sha256 and fetch them again: yibu verify SOURCE."),
)
"""These three are what torch, transformers and safetensors say, whatever engine they serve."""

GENERIC_CAUSES: tuple[Cause, ...] = (
    Cause(
        "port_in_use",
        re.compile(
            r"\[Errno 98\]|EADDRINUSE|address already in use|"
            r"couldn't bind HTTP server socket|cannot listen on (?P<address>\S+): Address already",
            re.IGNORECASE,
        ),
        tr("The engine's port is taken by another process."),
        tr(
            "See who holds it: ss -ltnp. Stop that process, or start again: yibu picks a free port."
        ),
    ),
    Cause(
        "shared_memory",
        # Not every line that names /dev/shm: weights are kept there too.
        re.compile(
            r"unable to (?:open|allocate|mmap|resize|write to) (?:a )?(?:shared memory|"
            r"file </(?:torch|psm)_)|"
            r"insufficient (?:shared memory|space in /dev/shm)|out of shared memory|"
            r"No space left on device:? '?/?(?:dev/shm/|psm_)|"
            r"/dev/shm/[^\n]*No space left on device",
            re.IGNORECASE,
        ),
        tr("There is too little shared memory (/dev/shm)."),
        tr(
            "Enlarge it: mount -o remount,size=8G /dev/shm (in a container: --shm-size=8g or "
            "--ipc=host)."
        ),
    ),
    Cause(
        "disk_full",
        re.compile(r"No space left on device|\[Errno 28\]|Disk quota exceeded", re.IGNORECASE),
        tr("The disk is full."),
        tr("Free some space (yibu gc), or move yibu's directories with YIBU_HOME=/larger/disk."),
    ),
    Cause(
        "missing_library",
        re.compile(r"(?P<library>[\w.+-]+\.so[.\d]*): cannot open shared object file"),
        tr("A shared library is missing on this machine: {library}."),
        tr("Install the system's package that has it: yibu doctor."),
        advice=lambda library: tr(
            "Install it, {how_to_install}.", how_to_install=how_to_install([library])
        ),
    ),
    Cause(
        "system_too_old",
        re.compile(r"(?P<symbol>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)['`]? not found"),
        tr(
            "This machine's system is older than the engine's packages expect: {symbol} is missing."
        ),
        tr(
            "Run yibu on a newer release of the distribution; docs/requirements.md has what "
            "each engine needs."
        ),
    ),
    Cause(
        "import_error",
        re.compile(
            r"(?:ModuleNotFoundError|ImportError): (?P<what>[^\n]+)|"
            r"No module named (?P<module>['\"]?[\w.]+['\"]?)"
        ),
        tr("A Python module cannot be imported in the engine's environment: {what}{module}."),
        tr("Make the environment anew: yibu engine rm NAME, then yibu engine install NAME."),
    ),
    Cause(
        "permission",
        re.compile(
            r"(?:PermissionError: )?\[Errno 13\] Permission denied(?:: (?P<path>[^\n]+))?|"
            r"Permission denied"
        ),
        tr("The engine may not read or write a file: {path}."),
        tr("Give the user that runs yibu the right to it: ls -l FILE, chmod, chown."),
    ),
    Cause(
        "bad_path",
        re.compile(
            r"(?:FileNotFoundError: )?\[Errno 2\] No such file or directory(?:: (?P<path>[^\n]+))?|"
            r"\(No such file or directory\)"
        ),
        tr("A file or directory does not exist: {path}."),
        tr("Check the path in yibu.yaml; for a model: yibu ls, yibu pull SOURCE."),
    ),
    Cause(
        "out_of_memory",
        re.compile(
            r"std::bad_alloc|MemoryError|Cannot allocate memory|\[Errno 12\]|"
            r"DefaultCPUAllocator: (?:can't|not enough) (?:allocate )?memory|out of memory",
            re.IGNORECASE,
        ),
        tr("The machine's memory does not suffice for this model with these settings."),
        tr(
            "See the arithmetic: yibu plan {model}. Less context or parallel, or a smaller "
            "quantization, takes less."
        ),
    ),
    Cause(
        "threads_limit",
        re.compile(r"Thread creation failed|can't start new thread|pthread_create[^\n]*failed"),
        tr("The system refused to start another thread."),
        tr(
            "Raise the limit (ulimit -u; systemd TasksMax; the container's pids limit), or "
            "set options.threads lower."
        ),
    ),
    Cause(
        "illegal_instruction",
        re.compile(r"Illegal instruction|SIGILL"),
        tr("This CPU lacks instructions that the engine was built for (AVX2, say)."),
        tr("Run it on a newer CPU (lscpu shows its flags), or use an engine built for this one."),
    ),
    Cause(
        "bad_flag",
        re.compile(r"error: unrecognized arguments: (?P<flags>[^\n]+)"),
        tr("The engine does not know these flags: {flags}."),
        tr("Check their spelling in yibu.yaml or after --; the log has the engine's usage above."),
    ),
)

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
    """The likeliest cause of a failure, from the end of the engine's log and its exit code.

    ``exit_code`` is negative for a signal, as ``subprocess`` has it (128 + n, as a shell has it,
    is understood). ``oom_killed``: the kernel's or cgroup's counter says so.
    """
    lines = [line.rstrip() for line in redact(log_text).splitlines() if line.strip()]
    signal_number = _signal(exit_code)
    if oom_killed and signal_number in (_SIGKILL, None):
        return Explanation("oom_killed", *_KILLED, tuple(lines[-_CONTEXT:]))
    for cause in (*causes, *GENERIC_CAUSES):
        if (match := _search(cause, lines)) is not None:
            return match
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
        tr("Read its last lines: yibu logs {model} -n 100."),
        tuple(lines[-_MAX_LINES:]),
    )


def _search(cause: Cause, lines: Sequence[str]) -> Explanation | None:
    """The last line that a cause's pattern finds, with its neighbours.

    Line by line, so that a pattern never reaches over two; the last, because engines retry.
    """
    for index in range(len(lines) - 1, -1, -1):
        if match := cause.pattern.search(lines[index]):
            groups = {
                name: " ".join((value or "").split()) for name, value in match.groupdict().items()
            }
            near = lines[max(0, index - _CONTEXT + 1) : index + 1]
            said = next(filter(None, groups.values()), "")
            hint = cause.advice(said) if cause.advice and said else filled(cause.hint, **groups)
            text = filled(cause.explanation, **groups)
            return Explanation(cause.key, text, hint, tuple(near))
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

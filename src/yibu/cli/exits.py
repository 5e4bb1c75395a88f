"""Exit codes: one table from typed errors to what a shell sees."""

from __future__ import annotations

from yibu import errors

DONE = 0
FAILED = 1
USAGE = 2
DOES_NOT_FIT = 3
VERIFICATION_FAILED = 4
NOT_RUNNING = 5
INTERRUPTED = 130
READER_GONE = 141
"""Exit code when the reader of standard output has closed it, as a shell has it for SIGPIPE."""

# Subclasses stand before their parents: the first match counts.
_TABLE: tuple[tuple[type[errors.YibuError], int], ...] = (
    (errors.UsageError, USAGE),
    (errors.DoesNotFitError, DOES_NOT_FIT),
    (errors.VerificationError, VERIFICATION_FAILED),
    (errors.NotRunningError, NOT_RUNNING),
    (errors.HungNodeError, NOT_RUNNING),
    (errors.PullCancelledError, INTERRUPTED),
)


def exit_code(error: errors.YibuError) -> int:
    """The exit code for one error; ``FAILED`` for those that have no code of their own."""
    return next((code for kind, code in _TABLE if isinstance(error, kind)), FAILED)

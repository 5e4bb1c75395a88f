"""Work that takes longer than a request: it goes on when its page is closed, and reports its progress."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yibu.errors import NotReadyError, YibuError
from yibu.messages import tr

logger = logging.getLogger(__name__)
_KEPT = 50
_AT_ONCE = 20


@dataclass(slots=True)
class ConsoleJob:
    """One piece of work."""

    id: str
    verb: str
    models: list[str]
    started: float
    """Unix seconds."""
    ended: float | None = None
    error: dict[str, str] | None = None
    progress: Mapping[str, Any] | None = None
    """The latest one of a download."""
    cancel: threading.Event | None = field(default=None, repr=False)
    """Cancels it, where it can be cancelled."""

    def plain(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "verb": self.verb,
            "models": self.models,
            "started": self.started,
            "ended": self.ended,
            "error": self.error,
            "progress": self.progress,
            "can_be_cancelled": self.cancel is not None and self.ended is None,
        }

    def report(self, progress: Mapping[str, Any]) -> None:
        self.progress = progress


class Jobs:
    """The latest jobs; running ones end with the gateway."""

    def __init__(self) -> None:
        self._jobs: deque[ConsoleJob] = deque(maxlen=_KEPT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = itertools.count(1)

    def start(self, verb: str, models: Sequence[str], work: Coroutine[Any, Any, Any]) -> ConsoleJob:
        """Begin ``work``.

        Raises:
            NotReadyError: as many are running as may.
        """
        return self.begin(verb, models, lambda _: work)

    def begin(
        self,
        verb: str,
        models: Sequence[str],
        make: Callable[[ConsoleJob], Coroutine[Any, Any, Any]],
        cancel: threading.Event | None = None,
    ) -> ConsoleJob:
        """Begin the work that ``make`` makes for its job. Raises NotReadyError."""
        job = ConsoleJob(f"j{next(self._number)}", verb, list(models), time.time(), cancel=cancel)
        work = make(job)
        if len(self._tasks) >= _AT_ONCE:
            work.close()
            raise NotReadyError(
                "{limit} pieces of work are running already",
                limit=_AT_ONCE,
                code="too_many_jobs",
                retry_after=5,
            )
        self._jobs.appendleft(job)
        task = asyncio.create_task(_run(job, work), name=f"console {verb} {job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def all(self) -> list[ConsoleJob]:
        """The newest first."""
        return list(self._jobs)

    def find(self, number: str) -> ConsoleJob | None:
        return next((job for job in self._jobs if job.id == number), None)

    async def aclose(self) -> None:
        """Cancel the gateway's side of them. The node finishes by itself what it was asked to do."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _run(job: ConsoleJob, work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except YibuError as error:
        job.error = {"message": error.message, "hint": error.hint, "cause": error.cause}
    except Exception:  # the job's own fault must be told, not lost with its task
        logger.exception("the console's %s of %s failed", job.verb, ", ".join(job.models))
        job.error = {
            "message": tr("The node failed; its log has the cause"),
            "hint": tr("yibu logs node"),
            "cause": "internal_error",
        }
    finally:
        job.ended = time.time()

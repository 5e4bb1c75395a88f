"""Downloads that resume, in any process, over several connections.

Why the SDKs' own download loops are not used (modelscope-hub 0.5, huggingface_hub 2.4): the
latter drops its partial file at the end of every process and checks no hash; the former fetches
one file at a time by default and resumes by length alone, whatever the file's ETag says now;
neither reports bytes in a form that both share, nor can be cancelled. So the SDKs list, sign and
name the cache's places, and the bytes come through here into those places.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from yibu.errors import HubError, PullCancelledError, VerificationError
from yibu.hub import http
from yibu.hub.partial import Partial, Segment
from yibu.hub.progress import Meter
from yibu.hub.settings import HubSettings

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

_POLL = 0.1
"""Seconds between progress reports, and between looks at the cancel event."""
_STOP_GRACE = 2.0
"""Seconds that connections get to notice a stop. They are daemon threads that write nothing
after it, so a server that says nothing cannot hold up Ctrl-C."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")


@dataclass(frozen=True, slots=True)
class Download:
    """One file to fetch into ``partial``; ``finish`` then checks it and moves it to its place.

    ``finish`` raises VerificationError on wrong bytes: the partial is deleted and fetched once
    more, from the start.
    """

    name: str
    """What errors and progress call it."""
    url: str
    partial: Path
    size: int | None
    finish: Callable[[Path], None]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Restarted(Exception):  # noqa: N818 - a signal between threads, not an error
    """Another connection found that the whole file has to start over."""


class _File:
    """A download in the works, shared by the threads that fetch its segments."""

    def __init__(self, download: Download, settings: HubSettings) -> None:
        self.download = download
        self.partial = Partial(download.partial, download.size, settings.segment_bytes)
        self.lock = threading.Lock()
        self.generation = 0
        """Goes up when the file starts over; a thread of an older generation lets go."""
        self.fresh_tries = 0
        self.finishing = False
        self.best = self.partial.done_bytes

    def progressed(self) -> bool:
        """Whether there are more bytes than ever: a server without ranges that always breaks
        off at the same place makes none, however much it sends."""
        done = self.partial.done_bytes
        better, self.best = done > self.best, max(done, self.best)
        return better


class Transfer:
    """Runs downloads to their end, or to the first error."""

    def __init__(
        self,
        client: http.HttpClient,
        settings: HubSettings,
        meter: Meter,
        cancel: threading.Event,
    ) -> None:
        self._client = client
        self._settings = settings
        self._meter = meter
        self._cancel = cancel
        self._stop = threading.Event()
        self._work: queue.SimpleQueue[tuple[_File, int, int] | None] = queue.SimpleQueue()
        self._left = 0
        self._state = threading.Condition()
        self._error: BaseException | None = None

    def run(self, downloads: Iterable[Download]) -> None:
        """Fetch and finish every download.

        Raises:
            HubError, VerificationError: the first thing that went wrong; partials stay.
            PullCancelledError: the cancel event was set; partials stay.
        """
        files = [_File(download, self._settings) for download in downloads]
        self._left = len(files)
        for file in files:
            self._meter.add(file.partial.done_bytes)
            self._schedule(file)
        count = min(self._settings.connections, max(1, self._work.qsize()))
        threads = [
            threading.Thread(target=self._worker, name=f"yibu-pull-{index}", daemon=True)
            for index in range(count)
        ]
        try:
            for thread in threads:
                thread.start()
            self._wait()
        finally:
            self._stop.set()
            for _ in threads:
                self._work.put(None)
            if self._error is not None or self._left:
                self._client.abort()
            deadline = time.monotonic() + _STOP_GRACE
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, deadline - time.monotonic()))
            if not any(thread.is_alive() for thread in threads):
                for file in files:
                    file.partial.close()

    def _wait(self) -> None:
        while True:
            with self._state:
                if self._error is not None:
                    raise self._error
                if not self._left:
                    return
                self._state.wait(_POLL)
            self._meter.report()
            if self._cancel.is_set():
                raise PullCancelledError(
                    "The download was cancelled.",
                    hint="Run the same command again to go on where it stopped.",
                )

    def _schedule(self, file: _File) -> None:
        todo = [i for i, segment in enumerate(file.partial.segments) if not segment.complete]
        # A complete file (its last process was killed before the check) still has to be finished.
        for index in todo or [0]:
            self._work.put((file, index, file.generation))

    def _worker(self) -> None:
        while (item := self._work.get()) is not None and not self._stop.is_set():
            file, index, generation = item
            try:
                self._segment(file, index, generation)
                self._finish_if_complete(file)
            except _Restarted:
                continue
            except BaseException as error:  # noqa: BLE001 - carried to the caller's thread, whole
                with self._state:
                    self._error = self._error or error
                    self._state.notify_all()
                return

    def _finish_if_complete(self, file: _File) -> None:
        with file.lock:
            if file.finishing or not file.partial.complete:
                return
            file.finishing = True
        try:
            file.download.finish(file.partial.path)
        except VerificationError as error:
            file.fresh_tries += 1
            if file.fresh_tries > 1 or self._stop.is_set():
                file.partial.delete()
                raise
            logger.warning("%s; fetching it once more", error.message)
            self._restart(file, file.download.size, "", whole=False)
            file.finishing = False
            self._schedule(file)
            return
        file.partial.journal_path.unlink(missing_ok=True)
        with self._state:
            self._left -= 1
            self._state.notify_all()

    def _segment(self, file: _File, index: int, generation: int) -> None:
        """Fetch what is missing of one segment, with retries."""
        tried = 0
        while not self._stop.is_set():
            with file.lock:
                if file.generation != generation:
                    raise _Restarted
                segment = file.partial.segments[index]
            if segment.complete:
                return
            try:
                generation, index = self._attempt(file, segment, index, generation)
            except http.TransientError as error:
                if self._stop.is_set():
                    return
                tried = 1 if file.progressed() else tried + 1
                if tried >= self._settings.attempts:
                    raise http.unreachable(file.download.name, self._settings, error) from error
                http.pause(self._settings, tried, error, self._stop, file.download.name)

    def _attempt(
        self, file: _File, segment: Segment, index: int, generation: int
    ) -> tuple[int, int]:
        """One request; returns the generation and segment that the thread goes on with."""
        headers = dict(file.download.headers)
        ranged = segment.next_byte > 0 or len(file.partial.segments) > 1
        if ranged:
            last = "" if segment.stop is None else segment.stop - 1
            headers["Range"] = f"bytes={segment.next_byte}-{last}"
            if file.partial.etag.startswith('"'):  # a weak validator is no good for If-Range
                headers["If-Range"] = file.partial.etag
        if file.fresh_tries:
            headers["Cache-Control"] = "no-cache"
        with self._client.get(file.download.url, headers, what=file.download.name) as response:
            if response.status_code == 416:
                return self._unsatisfied(file, segment, index, generation, response)
            etag = response.headers.get("ETag", "")
            total = self._announced(file, segment, response)
            changed = bool(file.partial.etag and etag and etag != file.partial.etag)
            if changed and response.status_code == 206:
                # It did not honour If-Range, and these bytes belong to another file.
                self._restart(file, file.download.size, etag, whole=False, seen=generation)
                self._schedule(file)
                raise _Restarted
            if ranged and response.status_code != 206:
                generation = self._restart(file, total, etag, whole=True, seen=generation)
                index, segment = 0, file.partial.segments[0]
            elif not file.partial.etag or (file.partial.size is None and total is not None):
                file.partial.learn(size=total, etag=etag)
            self._receive(file, segment, generation, response)
        return generation, index

    def _announced(self, file: _File, segment: Segment, response: requests.Response) -> int | None:
        """The file's size as this response has it, None where it does not say.

        Raises:
            VerificationError: the hub lists another size.
        """
        total: int | None = None
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != segment.next_byte:
                raise http.TransientError(
                    f"the server answered bytes {segment.next_byte}- with "
                    f"{response.headers.get('Content-Range')!r}"
                )
            total = None if match[3] == "*" else int(match[3])
        elif length := response.headers.get("Content-Length"):
            total = int(length)
        expected = file.download.size
        if total is not None and expected is not None and total != expected:
            found = "zero bytes" if total == 0 else f"{total} bytes"
            if not file.fresh_tries:
                file.fresh_tries += 1
                raise http.TransientError(f"the server has {found}, {expected} were expected")
            raise VerificationError(
                f"{file.download.name}: the server has {found}, but the hub lists {expected} bytes.",
                hint="The hub's storage holds a broken or newer file: try again later, or name "
                "another revision.",
            )
        return total

    def _receive(
        self, file: _File, segment: Segment, generation: int, response: requests.Response
    ) -> None:
        name = file.download.name
        for chunk in http.body(response, name):
            if self._stop.is_set():
                return
            room = None if segment.stop is None else segment.stop - segment.next_byte
            data = chunk if room is None else chunk[:room]
            with file.lock:
                if file.generation != generation:
                    raise _Restarted
                file.partial.write(segment, data)
            self._meter.add(len(data), name)
            if segment.complete:
                return
        if segment.stop is None:
            # Neither a length nor a range was given: the end of the body is the end of the file.
            file.partial.learn(size=segment.next_byte)
        elif not segment.complete:
            raise http.TransientError(
                f"the connection closed at byte {segment.next_byte} of {file.partial.size}"
            )

    def _unsatisfied(
        self,
        file: _File,
        segment: Segment,
        index: int,
        generation: int,
        response: requests.Response,
    ) -> tuple[int, int]:
        """416: the file is no longer than what is here, or shorter."""
        match = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", ""))
        if match and segment.stop is None and int(match[1]) == segment.next_byte:
            file.partial.learn(size=segment.next_byte)
            return generation, index
        if file.fresh_tries:
            raise HubError(
                f"{file.download.name}: the server refuses bytes {segment.next_byte}- of a file "
                f"that should have {file.download.size}.",
                hint="The hub's file changes while it is read; try again later.",
            )
        file.fresh_tries += 1
        self._restart(file, file.download.size, "", whole=True, seen=generation)
        self._schedule(file)
        raise _Restarted

    def _restart(
        self, file: _File, size: int | None, etag: str, *, whole: bool, seen: int | None = None
    ) -> int:
        """Start the file over, unless another thread just did; returns the new generation."""
        with file.lock:
            if seen is not None and file.generation != seen:
                raise _Restarted
            self._meter.add(-file.partial.done_bytes)
            file.partial.reset(size, etag, whole=whole)
            file.generation += 1
            return file.generation

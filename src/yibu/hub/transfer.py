"""Downloads that resume, in any process, over several connections.

Why the SDKs' own download loops are not used (modelscope-hub 0.5, huggingface_hub 2.4): the
latter drops its partial file at the end of every process and checks no hash; the former fetches
one file at a time by default and resumes by length alone, whatever the file's ETag says now;
neither reports bytes in a form that both share, nor can be cancelled. So the SDKs list, sign and
name the cache's files, and the bytes come through here into those files.
"""

from __future__ import annotations

import itertools
import logging
import queue
import re
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from yibu.errors import PullCancelledError, VerificationError
from yibu.hub import http, pages
from yibu.hub.context import PullContext
from yibu.hub.download import Claim, Download, DownloadFile, Restarted
from yibu.hub.evidence import evidence
from yibu.messages import tr

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

_POLL = 0.1
"""Seconds between progress reports, and between checks for a cancel."""
_STOP_GRACE = 0.5
"""Seconds that connections get to notice a stop. They are daemon threads that write nothing
after it, so a server that says nothing cannot hold up Ctrl-C."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes \*/(\d+)", re.IGNORECASE)
_CHANGES = 2
"""Changes of a file's ETag that are believed. Mirrors of several machines often give one each."""


class Transfer:
    """Runs downloads to their end, or to the first error."""

    def __init__(self, context: PullContext) -> None:
        self._client = context.client
        self._settings = context.settings
        self._meter = context.meter
        self._cancel = context.cancel
        self._stop = threading.Event()
        self._work: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
        self._left = 0
        self._state = threading.Condition()
        self._error: BaseException | None = None

    def run(self, downloads: Iterable[Download]) -> None:
        """Download and finish every file.

        Raises:
            HubError and its kinds, VerificationError: the first thing that went wrong; partials stay.
            PullCancelledError: the cancel event was set; partials stay.
        """
        files = [DownloadFile(download, self._settings) for download in downloads]
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
                    if not file.partial.done_bytes:
                        file.partial.delete()

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
                    hint="Run the same command again to go on where it stopped",
                )

    def _schedule(self, file: DownloadFile) -> None:
        todo = [i for i, segment in enumerate(file.partial.segments) if not segment.complete]
        # A complete file (its last process was killed before the check) still has to be finished.
        for index in todo or [0]:
            self._work.put(Claim(file, index, file.generation))

    def _worker(self) -> None:
        while (claim := self._work.get()) is not None and not self._stop.is_set():
            try:
                self._fetch(claim)
                self._finish_if_complete(claim.file)
            except Restarted:
                continue
            except BaseException as error:  # noqa: BLE001 - carried to the caller's thread, whole
                with self._state:
                    self._error = self._error or error
                    self._state.notify_all()
                return

    def _finish_if_complete(self, file: DownloadFile) -> None:
        with file.lock:
            if file.finishing or not file.partial.complete:
                return
            file.finishing = True
            file.partial.open()  # an empty file gets no bytes that would have opened it
        try:
            file.download.finish(file.partial.path, file.evidence)
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
        file.partial.close()
        file.partial.journal_path.unlink(missing_ok=True)
        with self._state:
            self._left -= 1
            self._state.notify_all()

    def _fetch(self, claim: Claim) -> None:
        """Download the missing part of one segment, with retries."""
        file, tried = claim.file, 0
        while not self._stop.is_set() and not claim.segment().complete:
            try:
                self._attempt(claim)
            except http.TransientError as error:
                if self._stop.is_set():
                    return
                tried = 1 if file.progressed() else tried + 1
                if tried >= self._settings.attempts:
                    raise http.unreachable(file.download.name, self._settings, error) from error
                http.pause(self._settings, tried, error, self._stop, file.download.name)

    def _attempt(self, claim: Claim) -> None:
        """One request, read to its end."""
        file, segment = claim.file, claim.segment()
        name = file.download.name
        headers = dict(file.download.headers)
        ranged = segment.next_byte > 0 or len(file.partial.segments) > 1
        if ranged:
            last = "" if segment.stop is None else segment.stop - 1
            headers["Range"] = f"bytes={segment.next_byte}-{last}"
            if file.partial.etag.startswith('"'):  # a weak validator is no good for If-Range
                headers["If-Range"] = file.partial.etag
        if file.fresh_tries:
            headers["Cache-Control"] = "no-cache"
        with self._client.get(
            file.download.url, headers, what=name, page=file.download.page
        ) as response:
            encoded = _is_encoded(response, file.download.size)
            chunks = http.body(response, name, decode=encoded)
            first = next(chunks, b"") if response.status_code in (200, 206) else b""
            at_start = response.status_code == 200 or segment.next_byte == 0
            if at_start and not file.download.page and pages.is_page(first):
                raise pages.web_page(name, file.download.url, response, first)
            total = self._announced(claim, response, encoded)
            if response.status_code == 416:
                self._unsatisfied(claim, total)
                return
            if response.status_code == 206 and encoded:
                # A range of compressed bytes is of no use: ask for the whole file.
                self._restart(file, file.download.size, "", whole=True, claim=claim)
                return
            with file.lock:
                self._begin(claim, response, total, ranged=ranged)
            self._receive(claim, itertools.chain([first], chunks))

    def _begin(
        self, claim: Claim, response: requests.Response, total: int | None, *, ranged: bool
    ) -> None:
        """Prepare for the response's bytes; the file's lock is held.

        Raises:
            Restarted: the file starts over, or it did so (and may be finished) without this thread.
        """
        file = claim.file
        claim.segment()
        file.partial.open()
        etag = response.headers.get("ETag", "") if file.changes <= _CHANGES else ""
        if response.status_code == 206 and file.partial.etag not in ("", etag) and etag:
            # It did not honour If-Range, and these bytes belong to another file; or its tags mean
            # nothing, and then one connection brings it all.
            file.changes += 1
            known = file.changes <= _CHANGES
            etag = etag if known else ""
            self._restart(file, file.download.size, etag, whole=not known, claim=claim)
            self._schedule(file)
            raise Restarted
        if ranged and response.status_code != 206:
            # The whole file comes: no ranges here, or a file that changed meanwhile.
            size = file.download.size if total is None else total
            self._restart(file, size, etag, whole=True, claim=claim)
        elif not file.partial.etag or (file.partial.size is None and total is not None):
            file.partial.learn(size=total, etag=etag)
        file.evidence = evidence(response)

    def _announced(self, claim: Claim, response: requests.Response, encoded: bool) -> int | None:
        """The file's size by this response, None where it does not say.

        Raises:
            VerificationError: the hub lists another size, and a fresh try changed nothing.
        """
        total: int | None = None
        given = response.headers.get("Content-Range", "")
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(given)
            if match is None or int(match[1]) != claim.segment().next_byte:
                raise http.TransientError(
                    tr("the server answered another range: {given!r}", given=given)
                )
            total = None if match[3] == "*" else int(match[3])
        elif response.status_code == 416:
            unsatisfied = _UNSATISFIED.fullmatch(given)
            total = int(unsatisfied[1]) if unsatisfied else None
        elif not encoded and (length := response.headers.get("Content-Length", "")).isdigit():
            total = int(length)
        expected = claim.file.download.size
        if total is not None and expected is not None and total != expected:
            found = tr("zero bytes") if total == 0 else tr("{total} bytes", total=total)
            self._start_afresh(
                claim,
                VerificationError(
                    "{download}: the server has {found}, but the hub lists {expected} bytes.",
                    download=claim.file.download.name,
                    found=found,
                    expected=expected,
                    hint="The hub's storage holds a broken or newer file: try again later, or "
                    "name another revision",
                ),
            )
        return total

    def _start_afresh(self, claim: Claim, error: VerificationError) -> NoReturn:
        """Give the server one more chance, from the first byte; then it is ``error``."""
        file = claim.file
        with file.lock:
            claim.segment()
            if file.fresh_tries:
                raise error
            file.fresh_tries += 1
            self._restart(file, file.download.size, "", whole=True, claim=claim)
        raise http.TransientError(error.message)

    def _receive(self, claim: Claim, chunks: Iterable[bytes]) -> None:
        file, name = claim.file, claim.file.download.name
        segment = claim.segment()
        for chunk in chunks:
            if self._stop.is_set():
                return
            room = None if segment.stop is None else segment.stop - segment.next_byte
            data = chunk if room is None else chunk[:room]
            with file.lock:
                if file.generation != claim.generation:
                    raise Restarted
                file.partial.write(segment, data)
            self._meter.add(len(data), name)
            if segment.complete:
                return
        if segment.stop is None:
            # Neither a length nor a range was given: the end of the body is the end of the file.
            file.partial.learn(size=segment.next_byte)
        elif not segment.complete:
            raise http.TransientError(
                tr(
                    "the connection closed at byte {next_byte} of {partial_size}",
                    next_byte=segment.next_byte,
                    partial_size=file.partial.size,
                )
            )

    def _unsatisfied(self, claim: Claim, total: int | None) -> None:
        """Handle 416: the file is no longer than what is here, or shorter."""
        file, segment = claim.file, claim.segment()
        if segment.stop is None and total == segment.next_byte:
            file.partial.learn(size=total)
            return
        self._start_afresh(
            claim,
            VerificationError(
                "{download}: the server refuses bytes {next_byte}- of a file that should "
                "have {download_size}.",
                download=file.download.name,
                next_byte=segment.next_byte,
                download_size=file.download.size,
                hint="The hub's file changes while it is read; try again later",
            ),
        )

    def _restart(
        self,
        file: DownloadFile,
        size: int | None,
        etag: str,
        *,
        whole: bool,
        claim: Claim | None = None,
    ) -> None:
        """Start the file over; ``claim`` then means its first segment.

        Raises:
            Restarted: another thread was first.
        """
        with file.lock:
            if claim is not None and file.generation != claim.generation:
                raise Restarted
            self._meter.add(-file.partial.done_bytes)
            file.partial.reset(size, etag, whole=whole)
            file.generation += 1
            if claim is not None:
                claim.generation, claim.index = file.generation, 0


def _is_encoded(response: requests.Response, size: int | None) -> bool:
    """Whether the body is compressed, although nobody asked for that; some servers only say so, of
    files that are archives themselves."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return False
    return size is None or response.headers.get("Content-Length") != str(size)

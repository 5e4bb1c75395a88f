"""Pulling a repository of a model hub into that hub's own cache.

A hub (``modelscope.py``, ``huggingface.py``) says what a repository holds and where its cache
wants each file; everything else, from locks to hashes, is the same for both and stands here.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path

from yibu.errors import HubError, HubUnreachableError, VerificationError
from yibu.files import write_whole
from yibu.hub import pages
from yibu.hub.cached import (
    cached_listing,
    read_unfinished,
    recorded_listing,
    select_here,
    unfinished,
)
from yibu.hub.completeness import indexed_files
from yibu.hub.context import (
    PullContext,
    check_pins_met,
    check_room,
    offline_error,
    pinned,
    pull_lock,
    record_meets,
)
from yibu.hub.digest import Digest, check, differs, md5_of
from yibu.hub.download import Download
from yibu.hub.evidence import Evidence
from yibu.hub.formats import check_format
from yibu.hub.headers import remote_headers
from yibu.hub.links import prune
from yibu.hub.locks import READ_ONLY_ERRNOS, pulling
from yibu.hub.partial import partial_bytes
from yibu.hub.protocol import Hub, Listing
from yibu.hub.quantization import QuantizationChoice, Variant
from yibu.hub.records import Proof, Record, RecordedFile, now, unchanged
from yibu.hub.removal import supersede
from yibu.hub.selection import RemoteFile, Selection, require_indexed, select
from yibu.hub.transfer import Transfer
from yibu.hub.types import Source
from yibu.hub.updates import version_at_hub
from yibu.messages import tr

logger = logging.getLogger(__name__)


def pull_repository(
    hub: Hub, source: Source, context: PullContext
) -> tuple[Record, tuple[str, ...]]:
    """The files that the source means, whole in the hub's cache, and notes on the choice among them."""
    record = context.records.read(source)
    whole = record is not None and not record.changed() and record_meets(record, context.pins)
    if record is not None and whole and (context.settings.offline or hub.immutable(source)):
        if record.superseded:  # asked for by its own name, no longer as another one's past
            record = replace(record, superseded=False)
            context.records.write(record)
        return record, ()
    context.meter.phase("listing")
    if context.settings.offline:
        listing = recorded_listing(record) if record else cached_listing(hub, source)
    else:
        try:
            listing = hub.listing(source, context.cancel)
        except HubUnreachableError as error:
            if record is None or not whole:
                raise
            logger.warning("%s What is here already is used.", error.message)
            return record, ()
    chosen = _chosen(hub, source, listing, record, context)
    check_pins_met(source, context.pins, set(chosen.paths))
    pull = _Pull(hub, source, listing, chosen, context)
    try:
        with pulling(pull.lock, context.cancel, pull.report_waiting):
            return pull.run(context.records.read(source)), (*chosen.notes, *pull.notes)
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:
            raise
        if (present := pull.present(record)) is not None:
            return present, chosen.notes
        if record is None or not whole:
            raise
        note = tr("{source} stays as it is here: its hub has other files, which cannot be written ({error})",
                  source=source, error=error.strerror)  # fmt: skip
        return record, (*chosen.notes, note)


def _chosen(
    hub: Hub, source: Source, listing: Listing, record: Record | None, context: PullContext
) -> Selection:
    main = record.main if record else ""
    if context.settings.offline:
        return select_here(hub, source, listing, main)

    def choose(found: Sequence[Variant]) -> QuantizationChoice:
        headers = remote_headers(source, listing.files, context.client, context.settings)
        return context.choose(found, headers)

    snapshot = hub.snapshot(source, listing.commit)

    def wanted(file: RemoteFile) -> bool:
        return file.path in context.pins or snapshot.existing(file) is not None

    chosen = select(listing.files, source, choose, main, wanted)
    _require_indexed(source, chosen, context)
    return chosen


def _require_indexed(source: Source, chosen: Selection, context: PullContext) -> None:
    """Hold the weights that indexes name against the listing, before the first of them comes."""
    listed = {file.path: file for file in chosen.files}
    for path, file in listed.items():
        if path.endswith(".index.json") and file.url:
            headers = remote_headers(source, [file], context.client, context.settings)
            require_indexed(source, path, indexed_files(headers.json(path)), listed)


class _Pull:
    """One pull of one listing."""

    def __init__(
        self, hub: Hub, source: Source, listing: Listing, chosen: Selection, context: PullContext
    ) -> None:
        self._source = source
        self._commit = commit = listing.commit
        self._listed = {file.path for file in listing.files}
        self._chosen = chosen
        self._files = chosen.files
        self._context = context
        self._workspace = hub.workspace
        self._snapshot = hub.snapshot(source, commit)
        self._unfinished = unfinished(hub, source, commit)
        self._expected = {
            file.path: pinned(context.pins, file.path, file.expected) for file in chosen.files
        }
        self._found: dict[str, Digest] = {}
        self._proofs: dict[str, Proof] = {}
        self._versions: dict[str, str] = {}
        self.notes: tuple[str, ...] = ()
        self.lock = pull_lock(source, context.store, hub.workspace)

    def run(self, record: Record | None) -> Record:
        missing = self._missing(record)
        if missing and self._context.settings.offline:
            raise offline_error(self._source, [file.path for file in missing])
        self._fetch(missing)
        self._snapshot.complete(self._source)
        fresh = self._record(record)
        if record is not None and record.root != fresh.root and record.commit != fresh.commit:
            supersede(record, self._context.records)
            note = tr("{source}: its earlier version {commit} stays on this disk until: yibu gc",
                      source=self._source, commit=record.commit[:8])  # fmt: skip
            self.notes = (note,)
        self._context.records.write(fresh)
        self._context.records.share(fresh)
        if missing:
            self._note_unfinished(())
        if record is not None and record.root == fresh.root:
            self._remove_withdrawn(record)
        return fresh

    def present(self, record: Record | None) -> Record | None:
        """The model where all of it is here and verified; nothing is written."""
        try:
            return None if self._missing(record) else self._record(record)
        except OSError as error:  # blobs of which no snapshot has links yet
            logger.info("%s cannot be used as it is here: %s", self._source, error)
            return None

    def _missing(self, record: Record | None) -> list[RemoteFile]:
        self._check_links()
        self._check_existing(record)
        return [file for file in self._files if file.path not in self._found]

    def _record(self, record: Record | None) -> Record:
        files = []
        for file in self._files:
            found = self._found[file.path]
            status = (self._snapshot.root / file.path).stat()
            files.append(
                RecordedFile(
                    file.path, found.size, found.sha256, status.st_mtime_ns, self._proofs[file.path],
                    self._versions.get(file.path, ""),
                )
            )  # fmt: skip
        return Record(
            self._source,
            self._commit,
            self._snapshot.root,
            tuple(files),
            links=record.links if record else (),
            pulled=now(),
            main=self._chosen.main,
        )

    def _remove_withdrawn(self, record: Record) -> None:
        """Remove what came before and the hub has no more: an engine loads whatever it finds beside the
        weights, old shards and their index too."""
        others = (each for each in self._context.records if each.source != self._source)
        kept = {each.root / file.path for each in others for file in each.files}
        for file in record.files:
            path = record.root / file.path
            if file.path not in self._listed and path not in kept:
                path.unlink(missing_ok=True)
                prune(path.parent, record.root)

    def _note_unfinished(self, files: Sequence[RemoteFile]) -> None:
        """Keep ``files`` beside what other pulls of this commit have to bring; our own else go."""
        others = read_unfinished(self._unfinished)
        left = {path: file for path, file in others.items() if path not in self._expected}
        left |= {file.path: file for file in files}
        if not left:
            self._unfinished.unlink(missing_ok=True)
            return
        kept = {path: astuple(file.expected) for path, file in left.items()}
        write_whole(self._unfinished, json.dumps(kept), 0o644)

    def report_waiting(self) -> None:
        """Another process has the lock: count what it has fetched."""
        done = 0
        for file in self._files:
            existing = self._snapshot.existing(file)
            if existing is not None:
                done += existing.stat().st_size
            else:
                done += partial_bytes(self._partial(file))
        self._context.meter.waiting(done)

    def _check_links(self) -> None:
        """Refuse to write through a link that somebody put into the cache."""
        root = self._snapshot.root
        for folder in {(root / file.path).parent for file in self._files} - {root}:
            if not folder.resolve().is_relative_to(root.resolve()):
                raise HubError(
                    "{source}: {folder} is a link that leads out of {root}; nothing is "
                    "written through it.",
                    source=self._source,
                    folder=folder,
                    root=root,
                    hint="Remove it, if you did not make it: rm {folder}",
                )

    def _check_existing(self, record: Record | None) -> None:
        """Find the files that are here already, and read those that no record vouches for."""
        recorded: dict[str, RecordedFile] = {}
        if record is not None and record.root == self._snapshot.root:
            recorded = {file.path: file for file in record.files}
        candidates = []
        for file in self._files:
            path = self._snapshot.existing(file)
            if path is None:
                continue
            known = recorded.get(file.path)
            if known and self._vouched(file, known):
                continue
            expected = self._expected[file.path]
            if expected.size is None or path.stat().st_size == expected.size:
                candidates.append((file, path))
        total = sum(path.stat().st_size for _, path in candidates)
        if candidates:
            self._context.meter.phase("verifying", total=total)
        for file, path in candidates:
            try:
                found = self._checked(file, path, count=self._context.meter.add_and_report)
            except VerificationError as error:
                logger.warning("%s It is fetched anew.", error.message)
                continue
            self._snapshot.adopt(file)
            self._found[file.path] = found

    def _vouched(self, file: RemoteFile, known: RecordedFile) -> bool:
        """Whether the record says it all: the file is as it was, or it is another one at the hub."""
        expected, found = self._expected[file.path], Digest(known.size, known.sha256)
        # The record keeps no git ids; such files are small and are read again.
        by_git = not expected.sha256 and expected.git_sha1
        if (
            by_git
            or differs(found, expected)
            or not unchanged(self._snapshot.root / file.path, known)
        ):
            return False
        if not expected.sha256:
            version = version_at_hub(self._source, file, known, self._context)
            if version is None:
                return True
            self._versions[file.path] = version
        self._found[file.path] = found
        self._proofs[file.path] = "hash" if expected.sha256 else known.proof
        return True

    def _fetch(self, files: list[RemoteFile]) -> None:
        sizes = sum(file.expected.size or 0 for file in files)
        here = sum(partial_bytes(self._partial(file)) for file in files)
        check_room(self._workspace, sizes - here, str(self._source))
        if files:
            self._note_unfinished(self._files)
        done = sum(found.size for found in self._found.values())
        self._context.meter.phase("downloading", total=sizes + done, done=done)
        Transfer(self._context).run([self._download(file) for file in files])

    def _download(self, file: RemoteFile) -> Download:
        name = f"{self._source}: {file.path}"

        def finish(partial: Path, said: Evidence) -> None:
            found = self._checked(file, partial, said)
            self._snapshot.publish(file, partial)
            self._found[file.path] = found

        return Download(
            name, file.url, self._partial(file), file.expected.size, finish, file.headers,
            pages.may_be_page(file.path),
        )  # fmt: skip

    def _checked(
        self,
        file: RemoteFile,
        path: Path,
        said: Evidence | None = None,
        count: Callable[[int], None] = lambda _: None,
    ) -> Digest:
        """Compare bytes with the best that is known of them: the listing's hash, the answer's, or
        the file's own format and length.

        Raises:
            VerificationError: they are something else.
        """
        name, expected = f"{self._source}: {file.path}", self._expected[file.path]
        said = said or Evidence()
        if not (expected.sha256 or expected.git_sha1):
            self._versions[file.path] = said.version
            size = said.expected.size if expected.size is None else expected.size
            expected = replace(said.expected, size=size)
        found = check(name, path, expected, cancel=self._context.cancel, count=count)
        if expected.sha256 or expected.git_sha1 or (said.md5 and md5_of(path) == said.md5):
            self._proofs[file.path] = "hash"
        elif check_format(name, path, file.path):
            self._proofs[file.path] = "format"
        else:
            self._proofs[file.path] = "none" if expected.size is None else "size"
        return found

    def _partial(self, file: RemoteFile) -> Path:
        """Named after what the bytes should be, so that a changed file starts a new one."""
        expected = file.expected
        identity = expected.sha256 or expected.git_sha1 or f"{self._commit} {expected.size}"
        source = self._source
        key = "\0".join((source.scheme, source.name, file.path, identity))
        name = f"{Path(file.path).name[:60]}.{hashlib.sha256(key.encode()).hexdigest()[:16]}.part"
        return self._workspace / name

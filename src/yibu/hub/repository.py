"""Pulling a repository of a model hub into that hub's own cache.

A hub (``modelscope.py``, ``huggingface.py``) says what a repository holds and where its cache
wants each file; everything else, from locks to hashes, is the same for both and stands here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Protocol

from yibu.errors import HubError, HubUnreachableError, VerificationError
from yibu.files import write_whole
from yibu.hub import pages
from yibu.hub.completeness import indexed_files
from yibu.hub.context import (
    PullContext,
    check_pins_met,
    check_room,
    existing_parent,
    offline_error,
    pinned,
    record_meets,
)
from yibu.hub.digest import Digest, Expected, check, differs, md5_of
from yibu.hub.download import Download
from yibu.hub.evidence import Evidence
from yibu.hub.formats import check_format
from yibu.hub.headers import remote_headers
from yibu.hub.links import prune
from yibu.hub.locks import exclusive
from yibu.hub.partial import partial_bytes
from yibu.hub.quantization import Choice, Chooser, Variant, usual
from yibu.hub.records import Proof, Record, RecordedFile, now, slug, unchanged
from yibu.hub.selection import RemoteFile, Selection, require_indexed, select
from yibu.hub.transfer import Transfer
from yibu.hub.types import Source
from yibu.messages import tr

logger = logging.getLogger(__name__)

UNFINISHED = ".unfinished"
_NO_WEIGHTS = (
    ".json", ".jsonl", ".txt", ".md", ".py", ".jinja", ".yaml", ".yml", ".model", ".vocab", ".tiktoken",
    ".gitattributes", ".gitignore", "license",
)  # fmt: skip
"""Endings of what configs and tokenizers are read from; weights have many more than can be listed."""


@dataclass(frozen=True, slots=True)
class Listing:
    commit: str
    """The commit that the revision means, or the branch's name where the hub tells no commit."""
    files: tuple[RemoteFile, ...]


class Snapshot(Protocol):
    """Where a hub's cache keeps one revision of a repository."""

    @property
    def root(self) -> Path:
        """The directory that holds the files under their own names."""

    def existing(self, file: RemoteFile) -> Path | None:
        """Bytes in the cache that claim to be this file."""

    def adopt(self, file: RemoteFile) -> None:
        """Make verified ``existing`` bytes appear under ``root``."""

    def publish(self, file: RemoteFile, fresh: Path) -> None:
        """Move verified bytes into the cache, over whatever was there."""

    def complete(self, source: Source) -> None:
        """Every file is there."""


class Hub(Protocol):
    cache: Path
    workspace: Path
    """yibu's own corner of the cache, for partial files and locks: on the same file system, and
    where the SDK's own look through its cache takes no notice. It holds plain files only."""

    def listing(self, source: Source, cancel: threading.Event) -> Listing:
        """Ask the hub.

        Raises:
            HubNotFoundError, HubAuthError, HubUnreachableError, HubError.
        """

    def cached_listing(self, source: Source) -> Listing | None:
        """What the cache holds of the repository, and what it knows to be missing; no network."""

    def immutable(self, source: Source) -> bool:
        """Whether the revision can never mean other files."""

    def snapshot(self, source: Source, commit: str) -> Snapshot: ...


def pull_repository(
    hub: Hub, source: Source, context: PullContext
) -> tuple[Record, tuple[str, ...]]:
    """The files that the source means, whole in the hub's cache, and notes on the choice among them."""
    record = context.records.read(source)
    whole = record is not None and not record.changed() and record_meets(record, context.pins)
    if record is not None and whole and (context.settings.offline or hub.immutable(source)):
        return record, ()
    context.meter.phase("listing")
    if context.settings.offline:
        listing = _recorded_listing(record) if record else _cached_listing(hub, source)
    else:
        try:
            listing = hub.listing(source, context.cancel)
        except HubUnreachableError as error:
            if record is None or not whole:
                raise
            logger.warning("%s What is here already is used.", error.message)
            return record, ()
    main = record.main if record else ""
    chosen = select(listing.files, source, _chooser(hub, source, listing, context), main)
    check_pins_met(source, context.pins, {file.path for file in chosen.files})
    if not context.settings.offline:
        _require_indexed(source, chosen, context)
    pull = _Pull(hub, source, listing, chosen, context)
    with exclusive(pull.lock, context.cancel, pull.report_waiting):
        return pull.run(context.records.read(source)), chosen.notes


def _chooser(hub: Hub, source: Source, listing: Listing, context: PullContext) -> Chooser:
    """Asks the context's own chooser; offline, where no header can be read, takes what is here."""

    def choose(found: Sequence[Variant]) -> Choice:
        if not context.settings.offline:
            return context.choose(
                found, remote_headers(source, listing.files, context.client, context.settings)
            )
        snapshot = hub.snapshot(source, listing.commit)
        by_path = {file.path: file for file in listing.files}
        for variant in found:
            if all(snapshot.existing(by_path[path]) for path in variant.files):
                return Choice(variant, tr("which is here"))
        return usual(found)

    return choose


def _require_indexed(source: Source, chosen: Selection, context: PullContext) -> None:
    """Hold the weights that indexes name against the listing, before the first of them comes."""
    listed = {file.path: file for file in chosen.files}
    for path, file in listed.items():
        if path.endswith(".index.json") and file.url:
            headers = remote_headers(source, [file], context.client, context.settings)
            require_indexed(source, path, indexed_files(headers.json(path)), listed)


def _cached_listing(hub: Hub, source: Source) -> Listing:
    """What the cache holds without a record, and what a pull that was cut off had still to bring.

    Raises:
        OfflineError: no model is there: nothing, or the few files that a tokenizer or a config is read from.
    """
    listing = hub.cached_listing(source)
    if listing is None:
        raise offline_error(source, ())
    files = {file.path: file for file in listing.files}
    files |= _read_unfinished(_unfinished(hub, source, listing.commit))
    if all(path.lower().endswith(_NO_WEIGHTS) for path in files):
        raise offline_error(source, [tr("the weights")])
    return replace(listing, files=tuple(files.values()))


def _unfinished(hub: Hub, source: Source, commit: str) -> Path:
    """Where a pull keeps what it was to bring, until it has: a hub's cache does not tell."""
    key = "\0".join((source.scheme, source.name, commit))
    return hub.workspace / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}{UNFINISHED}"


def _read_unfinished(path: Path) -> dict[str, RemoteFile]:
    try:
        items = json.loads(path.read_bytes()).items()
        return {name: RemoteFile(name, Expected(*expected)) for name, expected in items}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # no pull was cut off, or it was while it wrote this: nothing had come


def _recorded_listing(record: Record) -> Listing:
    files = (RemoteFile(file.path, Expected(file.size, file.sha256)) for file in record.files)
    return Listing(record.commit, tuple(files))


def move(fresh: Path, target: Path) -> None:
    """Rename into place; across file systems, copy first so that ``target`` is never half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        fresh.replace(target)
    except OSError as error:
        if target.is_dir():
            raise HubError(
                tr(
                    "{target} is a directory; a file belongs there: {error}.",
                    target=target,
                    error=error,
                )
            ) from error
        near = target.with_name(f".{target.name}.new")
        shutil.copyfile(fresh, near)
        near.replace(target)
        fresh.unlink()


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
        self._unfinished = _unfinished(hub, source, commit)
        self._expected = {
            file.path: pinned(context.pins, file.path, file.expected) for file in chosen.files
        }
        self._found: dict[str, Digest] = {}
        self._proofs: dict[str, Proof] = {}
        writable = os.access(existing_parent(hub.workspace), os.W_OK)
        # A cache that others keep, and we may only read, can still be complete.
        locks = hub.workspace if writable else context.store / "locks"
        self.lock = locks / f"{slug(Source(source.scheme, source.name))}.lock"

    def run(self, record: Record | None) -> Record:
        self._check_links()
        self._check_existing(record)
        missing = [file for file in self._files if file.path not in self._found]
        if missing and self._context.settings.offline:
            raise offline_error(self._source, [file.path for file in missing])
        self._fetch(missing)
        self._snapshot.complete(self._source)
        files = []
        for file in self._files:
            found = self._found[file.path]
            status = (self._snapshot.root / file.path).stat()
            files.append(
                RecordedFile(
                    file.path, found.size, found.sha256, status.st_mtime_ns, self._proofs[file.path]
                )
            )
        fresh = Record(
            self._source,
            self._commit,
            self._snapshot.root,
            tuple(files),
            links=record.links if record else (),
            pulled=now(),
            main=self._chosen.main,
        )
        self._context.records.write(fresh)
        if missing:
            self._note_unfinished(())
        if record is not None and record.root == fresh.root:
            self._remove_withdrawn(record)
        return fresh

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
        others = _read_unfinished(self._unfinished)
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
                    tr(
                        "{source}: {folder} is a link that leads out of {root}; nothing is "
                        "written through it.",
                        source=self._source,
                        folder=folder,
                        root=root,
                    ),
                    hint=tr("Remove it, if you did not make it: rm {folder}", folder=folder),
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
            expected = self._expected[file.path]
            if known and unchanged(self._snapshot.root / file.path, known):
                digest = Digest(known.size, known.sha256)
                # The record keeps no git ids; such files are small and are read again.
                if (expected.sha256 or not expected.git_sha1) and not differs(digest, expected):
                    self._found[file.path] = digest
                    self._proofs[file.path] = "hash" if expected.sha256 else known.proof
                    continue
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

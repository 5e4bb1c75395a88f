"""Managing stored models: list, verify, remove, collect garbage."""

from __future__ import annotations

import builtins
import difflib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from yibu.errors import HubError, HubNotFoundError, SourceError, VerificationError
from yibu.hub.cached import UNFINISHED
from yibu.hub.context import os_errors, pull_lock
from yibu.hub.digest import Expected, check, digest
from yibu.hub.local import local_files, open_local
from yibu.hub.locks import PULLS, READ_ONLY_ERRNOS, is_free, lease, try_exclusive
from yibu.hub.progress import ProgressMeter
from yibu.hub.records import Proof, Record, RecordedFile, Records, now, slug
from yibu.hub.removal import delete, earlier_commits
from yibu.hub.types import ProgressCallback, Scheme, Source
from yibu.messages import tr

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VerifyResult:
    source: Source
    problems: tuple[str, ...]
    """One sentence a file: its name, what was found and what was expected."""
    unverified: Mapping[str, Proof] = field(default_factory=dict)
    """Unchanged files without a hash, and what they were compared with instead."""

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Garbage:
    path: Path
    size: int
    reason: str


class Upkeep:
    """The part of the store that needs no hub."""

    def __init__(self, store: Path, workspaces: Mapping[Scheme, Path]) -> None:
        """``workspaces``: yibu's own directories in the hubs' caches."""
        self._store = store
        self._records = Records(store)
        self._workspaces = workspaces

    @contextmanager
    def lease(self, source: Source) -> Iterator[None]:
        """Mark the model as in use: ``remove`` and ``gc`` leave it alone. From a store that may only be
        read, nothing can be removed."""
        paths = filter(None, (self._lease_path(source), self._shared_lease(source)))
        with ExitStack() as held:
            with os_errors(source):
                for path in paths:
                    try:
                        held.enter_context(lease(path))
                    except OSError as error:
                        if error.errno not in READ_ONLY_ERRNOS:
                            raise
            yield

    def _lease_path(self, source: Source) -> Path:
        return self._store / "leases" / f"{slug(source)}.lock"

    def _shared_lease(self, source: Source) -> Path | None:
        """What tells the stores of other homes that this one uses files of a cache they share."""
        if (workspace := self._workspaces.get(source.scheme)) is None:
            return None
        store = hashlib.sha256(os.fsencode(self._store.resolve())).hexdigest()[:12]
        return workspace / f"{slug(Source(source.scheme, source.name))}.{store}.lease"

    def _others_leases(self, source: Source) -> builtins.list[Path]:
        if (own := self._shared_lease(source)) is None:
            return []
        repository = own.name.removesuffix(".lease").rpartition(".")[0]
        return [path for path in own.parent.glob(f"{repository}.*.lease") if path != own]

    def list(self) -> builtins.list[Record]:
        """Every model that was pulled."""
        return [*self._records]

    def verify(
        self, source: Source | None = None, progress: ProgressCallback | None = None
    ) -> builtins.list[VerifyResult]:
        """Read every byte of one model, or of all, and compare it with the store's record.

        A path without a record is recorded now: the next time there is something to compare with.

        Raises:
            HubNotFoundError: the model is not in the store.
        """
        sources = [source] if source else [record.source for record in self._records]
        return [self._verify(each, ProgressMeter(progress)) for each in sources]

    def _verify(self, source: Source, meter: ProgressMeter) -> VerifyResult:
        record = self._records.read(source)
        if record is None:
            if source.scheme != "local":
                raise self._unknown(source)
            record = _record_local(source)
            self._records.write(record)
            return VerifyResult(source, ())
        meter.phase("verifying", total=record.model.size)
        problems, files = [], []
        for file in record.files:
            path = record.root / file.path
            try:
                check(f"{path}", path, Expected(file.size, file.sha256), count=meter.add_and_report)
            except VerificationError as error:
                problems.append(error.message)
            except OSError as error:
                problems.append(
                    tr(
                        "{path}: {strerror}; {file_size} bytes were expected.",
                        path=path,
                        strerror=error.strerror,
                        file_size=file.size,
                    )
                )
            else:
                files.append(replace(file, mtime_ns=path.stat().st_mtime_ns))
                continue
            # No longer vouched for: the next pull reads it, and fetches it anew.
            files.append(replace(file, mtime_ns=-1))
        unlike = tuple(files) != record.files and source.scheme != "local"
        if unlike and self._records.read(source) == record:  # no pull has ended meanwhile
            self._records.write(replace(record, files=tuple(files)))
        return VerifyResult(source, tuple(problems), record.unverified)

    def remove(self, source: Source) -> int:
        """Delete a model's files, where no other model shares them, its links and its record.

        Returns the bytes that were freed.

        Raises:
            HubNotFoundError: it is not here.
            HubError: a running node uses it.
            SourceError: it is a path, and those files are the user's own.
        """
        record = self._records.read(source)
        if source.scheme == "local":
            if record is not None:
                self._records.remove(source)
            raise SourceError(
                "{source} is your own directory; yibu does not delete it.",
                source=source,
                hint=f"rm -r {source}",
            )
        if record is None:
            raise self._unknown(source)
        records = [record, *earlier_commits(record, self._records)]
        with os_errors(source), self._nobody_needs(records):
            # Read again: a pull may have ended before it was kept away.
            held = filter(None, [self._records.read(each.source) for each in records])
            return sum(size for each in held for size in delete(each, self._records))

    @contextmanager
    def _nobody_needs(self, records: builtins.list[Record]) -> Iterator[None]:
        """Keep nodes and pulls away from models to be removed.

        Raises:
            HubError: one of them is in use, or is being fetched.
        """
        source = records[0].source
        with ExitStack() as held:
            lock = pull_lock(source, self._store, self._workspaces.get(source.scheme))
            if not held.enter_context(try_exclusive(lock)):
                raise HubError(
                    "{source} is being downloaded by another process.",
                    source=source,
                    hint="Wait for its end, or stop that download first",
                )
            leases = set().union(*map(self._leases, records))
            if not all(held.enter_context(try_exclusive(lease)) for lease in leases):
                raise HubError(
                    "{source} is in use by a running model.",
                    source=source,
                    hint="Stop it first: yibu down MODEL",
                )
            if not all(map(is_free, self._others_leases(source))):
                raise HubError(
                    "{source} is in use by a node of another home, in the same cache.",
                    source=source,
                    hint="Stop it there first: YIBU_HOME=/that/home yibu down MODEL",
                )
            yield

    def _leases(self, record: Record) -> set[Path]:
        """What is held while the model is in use. Of an earlier commit nobody knows which of its
        repository's models runs from it still."""
        repository = (record.source.scheme, record.source.name)
        others = [
            each.source
            for each in self._records
            if record.superseded and (each.source.scheme, each.source.name) == repository
        ]
        return {self._lease_path(source) for source in (record.source, *others)}

    def gc(self, *, dry_run: bool = False) -> builtins.list[Garbage]:
        """Remove what nothing needs: partial files, half-made packages, records of nothing, earlier
        commits of a model.

        Other files in the hubs' caches are left alone, and so is whatever a pull or a node holds.
        """
        removed = []
        for item in self._garbage():
            removed.append(item)
            if dry_run:
                continue
            if item.path.is_dir():
                shutil.rmtree(item.path)
            else:
                item.path.unlink(missing_ok=True)
        for record in [each for each in self._records if each.superseded]:
            removed += self._collect(record, dry_run=dry_run)
        if not dry_run:
            leases = [*(self._store / "leases").glob("*.lock")]
            for workspace in self._workspaces.values():
                leases += workspace.glob("*.lease")
            for lease in leases:
                is_free(lease)  # whose last holder was killed: locking it once removes it
        return removed

    def _garbage(self) -> Iterator[Garbage]:
        """Whoever takes one deletes it before the next: no pull begins in between."""
        partial = self._store / "partial"
        places = {partial: self._store / "locks"} | {
            each: each for each in self._workspaces.values()
        }
        with ExitStack() as held:
            idle = {
                place: held.enter_context(try_exclusive(locks / PULLS))
                for place, locks in places.items()
                if os.access(locks, os.W_OK)  # a pull makes it before all else
            }
            for place in [place for place in idle if idle[place]]:
                for path in sorted(place.iterdir()) if place.is_dir() else ():
                    if path.suffix not in (".lock", ".lease", UNFINISHED):
                        yield Garbage(path, _size(path), tr("an unfinished download"))
            if not all(idle.values()):
                logger.info("a pull runs: what is unfinished beside it stays")
                return
            yield from self._unrecorded()

    def _unrecorded(self) -> Iterator[Garbage]:
        known = {slug(record.source) for record in self._records}
        packages = self._store / "packages"
        for directory in sorted(packages.iterdir()) if packages.is_dir() else ():
            lease = self._store / "leases" / f"{directory.name}.lock"
            if directory.name not in known and is_free(lease):
                yield Garbage(directory, _size(directory), tr("a package that no record names"))
        for record in self._records:
            if all(not (record.root / file.path).exists() for file in record.files):
                path = self._records.path(record.source)
                yield Garbage(
                    path,
                    _size(path),
                    tr("the record of {record_source}, which is gone", record_source=record.source),
                )
        for path in self._records.unreadable():
            yield Garbage(path, _size(path), tr("a record that cannot be read"))

    def _collect(self, record: Record, *, dry_run: bool) -> Iterator[Garbage]:
        try:
            with self._nobody_needs([record]):
                freed = delete(record, self._records, dry_run=dry_run)
        except HubError as error:
            logger.info("%s", error.message)
        else:
            yield Garbage(record.root, sum(freed), tr("an earlier version of a model"))

    def _unknown(self, source: Source) -> HubNotFoundError:
        names = [str(record.source) for record in self._records]
        near = difflib.get_close_matches(str(source), names, n=1, cutoff=0.4)
        return HubNotFoundError(
            "{source} is not in the store.",
            source=source,
            hint=tr("Did you mean '{near}'?", near=near[0])
            if near
            else tr("`yibu ls` shows what is here"),
        )


def _record_local(source: Source) -> Record:
    model = open_local(source)
    root = model.path if model.path.is_dir() else model.path.parent
    files = []
    for path, _ in local_files(model.path):
        found = digest(path)
        relative = path.relative_to(root).as_posix()
        files.append(RecordedFile(relative, found.size, found.sha256, path.stat().st_mtime_ns))
    return Record(source, "", root, tuple(files), pulled=now())


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    status = path.stat()
    # A partial file has holes: what it takes on the disk is what is freed.
    return min(status.st_size, status.st_blocks * 512)

"""The store: verified models on this machine's disk.

All methods block; they are meant for worker threads and the command line.
"""

from __future__ import annotations

import threading
from pathlib import Path

from yibu.errors import HubNotFoundError, SourceError
from yibu.hub import catalogue
from yibu.hub.context import Pins, PullContext
from yibu.hub.http import HttpClient
from yibu.hub.local import open_local
from yibu.hub.packages import pull_package
from yibu.hub.progress import Meter
from yibu.hub.records import Record, Records
from yibu.hub.settings import HubSettings
from yibu.hub.source import with_revision
from yibu.hub.types import LocalModel, ProgressCallback, Source
from yibu.paths import Paths


class Store:
    """Pulls models, finds them, and looks after them."""

    def __init__(self, paths: Paths, settings: HubSettings) -> None:
        self._store = paths.store
        self._settings = settings
        self._records = Records(paths.store)

    def pull(
        self,
        source: Source,
        *,
        revision: str | None = None,
        cache_dir: Path | None = None,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
        expect: Pins | None = None,
    ) -> LocalModel:
        """Have the model here, whole and verified; what is here already is not fetched again.

        ``cache_dir``: the files are found at ``cache_dir/ORG/NAME`` too, and the result's path
        is there. ``expect``: path → (bytes, sha256), over what the hub says.

        Raises:
            SourceError, HubError and its kinds, VerificationError, PullCancelledError.
        """
        source = with_revision(source, revision)
        if source.scheme == "local":
            return self._pull_local(source, cache_dir)
        meter = Meter(progress)
        client = HttpClient(self._settings, ca_bundle=self._ca_bundle(source))
        context = PullContext(
            self._store,
            self._records,
            self._settings,
            client,
            meter,
            cancel or threading.Event(),
            catalogue.pins(source) if expect is None else expect,
        )
        try:
            record = self._pull_remote(source, context)
        finally:
            client.close()
        meter.phase("done", total=record.model.size, done=record.model.size)
        return record.model

    def find(self, source: Source) -> LocalModel | None:
        """The model if it is here and looks as it did when it was verified; no network."""
        if source.scheme == "local":
            try:
                return open_local(source)
            except HubNotFoundError:
                return None
        record = self._records.read(source)
        return record.model if record and not record.changed() else None

    def _pull_remote(self, source: Source, context: PullContext) -> Record:
        return pull_package(source, context)

    def _pull_local(self, source: Source, cache_dir: Path | None) -> LocalModel:
        if cache_dir is not None:
            raise SourceError(
                f"{source} is a path: there is nothing to fetch into {cache_dir}.",
                hint="Use the path itself.",
            )
        return open_local(source)

    def _ca_bundle(self, source: Source) -> str | None:
        return self._settings.index.ca_bundle if source.scheme == "pypi" else None

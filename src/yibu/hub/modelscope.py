"""ModelScope through its SDK, ``modelscope-hub``: listing, login and the cache's layout.

The cache (SDK 0.5): ``$MODELSCOPE_CACHE/models/ORG--NAME/snapshots/REVISION/…``. Older SDKs kept
``models/ORG/NAME`` or ``hub/models/ORG/NAME``, those before 1.22 ``hub/ORG/NAME`` or ``ORG/NAME``, dots in
NAME written ``___``: such a directory goes on being used where there is one.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yibu import __version__
from yibu.errors import HubAuthError, HubError, HubNotFoundError, HubUnreachableError
from yibu.hub import http, pages, tls
from yibu.hub.completeness import lacking
from yibu.hub.digest import EMPTY_SHA256, Expected
from yibu.hub.links import MANIFEST
from yibu.hub.local import local_files
from yibu.hub.protocol import Listing, move
from yibu.hub.selection import RemoteFile
from yibu.hub.settings import HubSettings
from yibu.hub.types import Source
from yibu.messages import tr
from yibu.redaction import register

if TYPE_CHECKING:
    from modelscope_hub import HubApi

_BRANCH = "master"


def workspace(settings: HubSettings) -> Path:
    """yibu's directory in the cache: its files must be plain ones, because the SDK takes a directory in
    a directory for a model."""
    return settings.modelscope_cache / ".yibu"


class ModelScopeHub:
    def __init__(self, settings: HubSettings) -> None:
        self.cache = settings.modelscope_cache
        self.workspace = workspace(settings)
        self._settings = settings

    def listing(self, source: Source, cancel: threading.Event) -> Listing:  # noqa: ARG002 - Hub's
        """The SDK retries by itself (four tries, seconds apart), and bounds every wait."""
        revision = source.revision or _BRANCH
        from modelscope_hub import HubApi, HubConfig

        config = HubConfig(
            endpoint=self._settings.modelscope_endpoint,
            cache_dir=self.cache,
            token=self._settings.modelscope_token,
        )
        register(config.token)
        # It tells of each try by itself, in lines of another form; the error says what came of them.
        logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
        api = HubApi(config)
        self._connect(api)
        what = tr("the list of {source}'s files", source=source.name)
        endpoint = api.legacy.endpoint
        http.require_proxy(self._settings, endpoint, what)
        try:
            found = api.list_repo_files(source.name, "model", revision=revision)
        except Exception as error:  # the SDK's, requests' and JSON's: all get names of ours here
            status, text = (
                getattr(error, "status_code", None),
                getattr(error, "response_body", None),
            )
            if wrong := tls.fault(error, endpoint, status) or pages.not_the_hub(
                error, status, text, endpoint, what
            ):
                raise wrong from error
            raise _translated(error, source, endpoint) from error
        headers = {"User-Agent": f"yibu/{__version__}"}
        if token := config.token:  # ours, or the login that the SDK keeps
            # Both, as the SDK does: older endpoints know only the cookie.
            headers |= {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"}
        files = tuple(
            RemoteFile(
                file.path,
                _expected(file),
                api.legacy.get_download_url(source.name, "model", file.path, revision),
                headers,
            )
            for file in found
            if file.type != "tree"
        )
        return Listing(revision, files)

    def _connect(self, api: HubApi) -> None:
        """Have the SDK use our proxies: it would read the environment by itself, and fail where a
        variable says ``socks://``."""
        proxy = self._settings.proxies.of(api.legacy.endpoint)
        for name in ("_session", "_read_session"):
            if (session := getattr(api.legacy, name, None)) is not None:
                session.trust_env = False
                session.verify = tls.trusted(self._settings.ca_bundle)
                session.proxies = {} if proxy is None else {"all": proxy.url}

    def cached_listing(self, source: Source) -> Listing | None:
        revision = source.revision or _BRANCH
        root = self._root(source, revision)
        if not root.is_dir():
            return None
        files = dict[str, Expected]()
        for path, size in local_files(root):
            name = path.relative_to(root).as_posix()
            # The SDK's own pull of it was cut off.
            whole = name.removesuffix(".incomplete")
            files[whole] = Expected(size) if whole == name else files.get(whole, Expected())
        files |= dict.fromkeys(lacking(root, files), Expected())
        return Listing(revision, tuple(RemoteFile(*item) for item in files.items()))

    def immutable(self, source: Source) -> bool:  # noqa: ARG002 - the protocol's
        return False  # a ModelScope revision is a branch or a tag

    def snapshot(self, source: Source, commit: str) -> _Snapshot:
        return _Snapshot(self._root(source, commit))

    def _root(self, source: Source, revision: str) -> Path:
        owner, name = source.name.split("/")
        for base in ("models", "hub/models", "hub", "."):
            legacy = self.cache / base / owner / name.replace(".", "___")
            if legacy.is_dir() and any(legacy.iterdir()) and not (legacy / MANIFEST).exists():
                return legacy
        return self.cache / "models" / f"{owner}--{name}" / "snapshots" / revision


@dataclass(frozen=True, slots=True)
class _Snapshot:
    root: Path

    def existing(self, file: RemoteFile) -> Path | None:
        path = self.root / file.path
        return path if path.is_file() else None

    def adopt(self, file: RemoteFile) -> None:
        """Do nothing: the file is in place already."""

    def publish(self, file: RemoteFile, fresh: Path) -> None:
        move(fresh, self.root / file.path)

    def complete(self, source: Source) -> None:
        """Do nothing: the SDK keeps no further marks."""


def _expected(file: Any) -> Expected:
    if not isinstance(file.size or 0, int) or (file.size or 0) < 0:
        raise HubError(
            "ModelScope lists {file_path} with the size {file_size!r}; nothing was fetched.",
            file_path=file.path,
            file_size=file.size,
            hint="Try again later, or name another revision",
        )
    sha256 = file.sha256.lower() if file.sha256 else None
    # The listing says 0 for an empty file and for a size it does not know.
    size = file.size if file.size or sha256 in (None, EMPTY_SHA256) else None
    return Expected(size, sha256)


def _translated(error: Exception, source: Source, endpoint: str) -> HubError:
    from modelscope_hub import errors

    if isinstance(error, errors.NotExistError):
        return HubNotFoundError(
            "ModelScope has no model {source} at revision {revision}, or it is private.",
            source=source.name,
            revision=source.revision or _BRANCH,
            hint="Check the spelling on modelscope.cn; for a private model set MODELSCOPE_API_TOKEN",
        )
    if isinstance(error, errors.AuthenticationError | errors.PermissionDeniedError):
        return HubAuthError(
            "ModelScope refuses {source}: {error_message}.",
            source=source.name,
            error_message=error.message,
            hint="Set MODELSCOPE_API_TOKEN to a token of modelscope.cn/my/myaccesstoken",
        )
    if isinstance(error, errors.NetworkError):
        return HubUnreachableError(
            "ModelScope cannot be reached for the files of {source}: {reason}.",
            source=source.name,
            reason=http.shortest(error.__cause__ or error),
            hint="`yibu doctor` checks the network; MODELSCOPE_ENDPOINT names another hub",
        )
    if isinstance(error, errors.ServerError | errors.RateLimitError):
        return HubUnreachableError(
            "ModelScope did not list the files of {source}: {error}.",
            source=source.name,
            error=f"HTTP {error.status_code}" if error.status_code else error.message,
            hint=http.asks_less()
            if error.status_code == 429
            else tr("Run the command again later; `yibu doctor` checks the network"),
        )
    return HubError(
        "ModelScope's list of {source} cannot be used: {error!r}.",
        source=source.name,
        error=error,
        hint=pages.no_hub(endpoint),
    )

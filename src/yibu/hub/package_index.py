"""Finding a wheel by name and version where the user's pip and uv would.

Only the index is read here; nothing is installed, built, imported or run. Protocols: the simple
repository API (PEP 503 in HTML, PEP 691 in JSON) and pip's find-links folders and pages.
"""

from __future__ import annotations

import html.parser
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from yibu.errors import HubAuthError, HubError, HubNotFoundError
from yibu.hub import http, pages
from yibu.hub.settings import HubSettings
from yibu.messages import tr
from yibu.pipconfig import local_path

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_PAGE_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A wheel that an index or a folder offers."""

    filename: str
    url: str = field(repr=False)
    """``https:`` or ``file:``; may hold a password."""
    sha256: str | None = None
    size: int | None = None


def find_wheel(
    dist: str,
    version: str,
    client: http.HttpClient,
    settings: HubSettings,
    cancel: threading.Event,
) -> WheelFile:
    """The wheel of this name and version.

    Raises:
        HubNotFoundError: no index has it; the versions that exist are named.
        HubUnreachableError, HubAuthError: no index answered, and none has it.
    """
    versions: set[str] = set()
    failure: HubError | None = None
    index = settings.index
    locations = [(url, False) for url in index.indexes] + [(url, True) for url in index.find_links]
    for location, page in locations:
        try:
            offered = _offered(location, dist, page, client, settings, cancel)
        except HubNotFoundError:
            continue
        except HubAuthError as error:
            refused = HubAuthError(
                error.message, hint=tr("Put the index' user and password into pip's index-url")
            )
            failure = failure or refused
            continue
        except HubError as error:
            failure = failure or error
            continue
        for wheel in offered:
            named, found, pure = _wheel_name(wheel.filename)
            if named != canonicalize_name(dist):
                continue
            if wheel.url.startswith("file:") and local_path(location) is None:
                continue  # a page from the network has no business with files of this machine
            versions.add(found)
            if pure and same_version(found, version):
                return wheel
    if failure is not None:
        raise failure
    known = ", ".join(sorted(versions)) or tr("none")
    raise HubNotFoundError(
        "No index has a pure-Python wheel of {dist}=={version}; versions with a wheel: {known}.",
        dist=dist,
        version=version,
        known=known,
        hint="Check the name and the version, or your pip index settings (`pip config list`)",
    )


def same_version(left: str, right: str) -> bool:
    try:
        return Version(left) == Version(right)
    except InvalidVersion:
        return left == right


def _wheel_name(filename: str) -> tuple[str, str, bool]:
    """Name (normalized) and version of a wheel, and whether it is pure Python; empty for no wheel."""
    try:
        name, version, _, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return "", "", False
    return name, str(version), all(tag.abi == "none" and tag.platform == "any" for tag in tags)


def _offered(
    location: str,
    dist: str,
    page: bool,
    client: http.HttpClient,
    settings: HubSettings,
    cancel: threading.Event,
) -> list[WheelFile]:
    """The files of a project in an index, or all files of a find-links folder or page."""
    folder = local_path(location)
    if folder is not None:
        return _folder_files(folder if page else folder / canonicalize_name(dist))
    url = location if page else f"{location.rstrip('/')}/{canonicalize_name(dist)}/"
    what = tr("the list of {source}'s files", source=dist)

    def read() -> tuple[bytes, str, str]:
        with client.get(url, {"Accept": _ACCEPT}, what=what, page=True) as response:
            content = bytearray()
            for chunk in http.body(response, what):
                content += chunk
                if len(content) > _PAGE_LIMIT:
                    raise HubError(
                        "{what} is over {limit} bytes; an index page was expected.",
                        what=what,
                        limit=_PAGE_LIMIT,
                    )
            if _is_login(bytes(content)):
                raise pages.web_page(what, url, response, bytes(content))
            return bytes(content), response.headers.get("Content-Type", ""), response.url or url

    content, kind, final = http.retrying(settings, what, read, cancel)
    # A redirect drops the password that the configured URL holds; same host, same password.
    final = _with_login(final, location)
    if "json" in kind:
        return list(_json_files(content, final))
    return list(_html_files(content, final))


def _is_login(content: bytes) -> bool:
    """Whether a page that should list files is one to log in with, or leads to one: it has no file,
    and a form, a script or a refresh, which no index needs."""
    low = content[:100_000].lower()
    has_files = re.search(rb"\.whl|\.tar\.gz|\.zip", low)
    asks = re.search(rb"""<form|<script|http-equiv=["']refresh|type="password""", low)
    return bool(pages.is_page(content) and asks and not has_files)


def _json_files(content: bytes, base: str) -> Iterator[WheelFile]:
    try:
        for file in json.loads(content)["files"]:
            yield WheelFile(
                file["filename"],
                _with_login(urllib.parse.urljoin(base, file["url"]), base),
                (file.get("hashes") or {}).get("sha256"),
                file.get("size"),
            )
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(
            "The index at {base} sent JSON that is no file list: {error}.",
            base=_host(base),
            error=error,
        ) from error


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.hrefs.append(href)


def _html_files(content: bytes, base: str) -> Iterator[WheelFile]:
    links = _Links()
    links.feed(content.decode("utf-8", "replace"))
    for href in links.hrefs:
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(base, href))
        filename = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        sha256 = urllib.parse.parse_qs(fragment).get("sha256", [None])[0]
        yield WheelFile(filename, _with_login(url, base), sha256)


def _folder_files(folder: Path) -> list[WheelFile]:
    index = folder / "index.html"
    if index.is_file():
        return list(_html_files(index.read_bytes(), index.as_uri()))
    return [
        WheelFile(path.name, path.as_uri(), None, path.stat().st_size)
        for path in sorted(folder.glob("*.whl"))
    ]


def _with_login(url: str, configured: str) -> str:
    """Put the configured URL's user and password into a URL of the same host that has none."""
    ours, theirs = urllib.parse.urlsplit(configured), urllib.parse.urlsplit(url)
    if "@" not in ours.netloc or "@" in theirs.netloc or ours.hostname != theirs.hostname:
        return url
    login = ours.netloc.rpartition("@")[0]
    return theirs._replace(netloc=f"{login}@{theirs.netloc}").geturl()


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or url

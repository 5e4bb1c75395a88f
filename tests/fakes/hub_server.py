"""A small hub: ModelScope's and Hugging Face's protocols and a package index, with faults on order.

One real HTTP server on a free port. ``repos`` and ``packages`` are what it serves; ``faults`` is
what goes wrong; ``requests`` and ``sent`` tell what was asked for and how many bytes went out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import ssl
import sys
import threading
import urllib.parse
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.fakes.faults import Fault, Faults

LFS_BYTES = 1000
"""Files larger than this are served like LFS files: by a redirect, with a sha256."""
COMMIT = "c0ffee" * 6 + "c0ff"
_BLOCK = 16 * 1024


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    range: str | None
    authorization: str | None
    cookie: str | None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class HubServer:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        """``ORG/NAME`` → path → bytes"""
        self.listed: dict[str, dict[str, object]] = {}
        """path → fields of ModelScope's listing to say instead of the truth"""
        self.packages: dict[str, bytes] = {}
        """file name of a wheel → its bytes"""
        self.faults = Faults()
        self.requests: list[Seen] = []
        self.sent: dict[str, int] = {}
        """file → bytes of its body that went out"""
        self.hashless = False
        """A mirror that lists no hash and sends no tag that is one."""
        self.token: str | None = None
        self.gated: set[str] = set()
        self.revisions = {"main", "master", "v1", COMMIT}
        self.commit = COMMIT
        """What Hugging Face's branches mean."""
        self.html_index = False
        self.storage = ""
        """Where redirects to large files lead; by default this server by another name."""
        self.running = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.gate = threading.Event()
        """Opens what a ``gate`` fault holds back: the second half of a body."""
        self._server = _Server(self)
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def idle(self) -> bool:
        """No request is being answered."""
        return self.running == 0

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.faults.check()

    def fault(self, match: str, kind: str, **options: object) -> Fault:
        """Order a fault, which must happen before the server is closed; see :class:`Fault`."""
        return self.faults.order(Fault(match, kind, **options))  # type: ignore[arg-type]

    def bodies(self, suffix: str) -> int:
        """Bytes sent of files whose name ends so."""
        with self.lock:
            return sum(count for name, count in self.sent.items() if name.endswith(suffix))

    def asked(self, part: str, method: str = "GET") -> list[Seen]:
        return [seen for seen in self.requests if part in seen.path and seen.method == method]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are the point of many tests; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: 40 ms an answer

    @property
    def hub(self) -> HubServer:
        assert isinstance(self.server, _Server)
        return self.server.hub

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: tests read ``requests``."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with self.hub.lock:
            self.hub.running += 1
        try:
            self._serve()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client went away
        finally:
            with self.hub.lock:
                self.hub.running -= 1

    def _serve(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        self.route = urllib.parse.unquote(parts.path)
        self.query = dict(urllib.parse.parse_qsl(parts.query))
        path = urllib.parse.unquote(self.path)
        with self.hub.lock:
            self.hub.requests.append(
                Seen(
                    self.command,
                    path,
                    self.headers.get("Range"),
                    self.headers.get("Authorization"),
                    self.headers.get("Cookie"),
                )
            )
        if fault := self.hub.faults.take(path, "status"):
            self._reply(int(fault.value), fault.body, fault.headers)
        elif self.hub.faults.take(path, "hang"):
            self.hub.closing.wait(600)
            self.close_connection = True
        elif self.route.startswith("/api/v1/models/"):
            self._modelscope()
        elif self.route.startswith("/api/models/"):
            self._huggingface_api()
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.route):
            self._resolve(*match.groups())
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", self.route):
            self._file(match[2], self.hub.repos[match[1]][match[2]])
        elif match := re.fullmatch(r"/simple/([^/]+)/", self.route):
            self._index(match[1])
        elif match := re.fullmatch(r"/packages/(.+)", self.route):
            self._file(match[1], self.hub.packages[match[1]])
        else:
            self._reply(404, b"no such path")

    # -- ModelScope ------------------------------------------------------------------

    def _modelscope(self) -> None:
        match = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?", self.route)
        repo = match[1] if match else ""
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._ms_error(401, "login required")
        elif repo not in self.hub.repos or self.query.get("Revision") not in self.hub.revisions:
            self._ms_error(404, f"{repo} not found")
        elif match and match[2]:
            files = [
                {
                    "Path": path,
                    "Name": path.rpartition("/")[2],
                    "Type": "blob",
                    "Size": len(data),
                    "Sha256": "" if self.hub.hashless else sha256(data),
                }
                | self.hub.listed.get(path, {})
                for path, data in self.hub.repos[repo].items()
            ]
            files.append({"Path": "folder", "Name": "folder", "Type": "tree", "Size": 0})
            self._json({"Code": 200, "Data": {"Files": files}, "Success": True})
        elif self.query["FilePath"] not in self.hub.repos[repo]:
            self._ms_error(404, "no such file")
        elif len(self.hub.repos[repo][self.query["FilePath"]]) > LFS_BYTES:
            self._redirect(repo, self.query["FilePath"], {})
        else:
            path = self.query["FilePath"]
            self._file(path, self.hub.repos[repo][path])

    def _ms_error(self, status: int, message: str) -> None:
        self._json({"Code": status, "Message": message, "RequestId": "r", "Success": False}, status)

    # -- Hugging Face ----------------------------------------------------------------

    def _huggingface_api(self) -> None:
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", self.route)
        repo, what, revision = match.groups() if match else ("", None, None)
        if not self._hf_allowed(repo, revision or "main"):
            return
        files = self.hub.repos[repo]
        if what == "tree":
            self._json([_tree_entry(path, data) for path, data in files.items()])
            return
        siblings = [{"rfilename": path} for path in files]
        if self.query.get("blobs"):
            siblings = [_sibling(path, data) for path, data in files.items()]
            if self.hub.hashless:
                siblings = [
                    {key: entry[key] for key in ("rfilename", "size")} for entry in siblings
                ]
        self._json({"id": repo, "modelId": repo, "sha": self.hub.commit, "siblings": siblings})

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        if not self._hf_allowed(repo, revision):
            return
        if path not in self.hub.repos[repo]:
            self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = self.hub.repos[repo][path]
        if self.hub.hashless:
            self._file(path, data)
            return
        headers = {"X-Repo-Commit": self.hub.commit}
        if len(data) > LFS_BYTES:
            self._redirect(
                repo,
                path,
                headers | {"X-Linked-ETag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))},
            )
        else:
            self._file(path, data, headers | {"ETag": f'"{git_sha1(data)}"'})

    def _hf_allowed(self, repo: str, revision: str) -> bool:
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            message = "Invalid credentials in Authorization header"
            self._reply(401, b"", {"X-Error-Message": message})
        elif repo in self.hub.gated:
            self._reply(403, b"", {"X-Error-Code": "GatedRepo"})
        elif repo not in self.hub.repos:
            self._reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in {*self.hub.revisions, self.hub.commit}:
            self._reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return True
        return False

    # -- A package index -------------------------------------------------------------

    def _index(self, project: str) -> None:
        files = [
            (name, data)
            for name, data in self.hub.packages.items()
            if re.sub(r"[-_.]+", "-", name.split("-")[0]).lower() == project
        ]
        if not files:
            self._reply(404, b"")
        elif self.hub.html_index:
            links = "".join(
                f'<a href="../../packages/{name}#sha256={sha256(data)}">{name}</a>'
                for name, data in files
            )
            self._reply(200, links.encode(), {"Content-Type": "text/html"})
        else:
            self._json(
                {
                    "files": [
                        {
                            "filename": name,
                            "url": f"/packages/{name}",
                            "size": len(data),
                            "hashes": {"sha256": sha256(data)},
                        }
                        for name, data in files
                    ]
                },
                kind="application/vnd.pypi.simple.v1+json",
            )

    # -- Answers ---------------------------------------------------------------------

    def _file(self, name: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        path = urllib.parse.unquote(self.path)
        take = self.hub.faults.take if self.command == "GET" else lambda *_: None
        headers = {"ETag": f'"{sha256(data)[:16]}"'} | (headers or {})
        if self.command == "GET":
            headers |= self._other_headers(path)
        if data and take(path, "empty"):
            data = b""
        if (fault := take(path, "body")) is not None:
            data, headers = fault.body, headers | fault.headers
        start, stop, status = 0, len(data), 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        honoured = self.headers.get("If-Range") in (None, headers["ETag"])
        if wanted and honoured and not take(path, "ignore-range"):
            start = int(wanted[1])
            stop = min(int(wanted[2]) + 1, len(data)) if wanted[2] else len(data)
            if start >= len(data):
                self._reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            if fault := take(path, "range"):
                headers["Content-Range"] = f"bytes {start + int(fault.value)}-{stop}/{len(data)}"
            if take(path, "unit"):
                headers["Content-Range"] = headers["Content-Range"].replace("bytes", "Bytes")
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(stop - start)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send(name, path, data[start:stop])

    def _other_headers(self, path: str) -> dict[str, str]:
        headers = {}
        if fault := self.hub.faults.take(path, "etag"):
            headers["ETag"] = f'"changed-{fault.value}"'
        if fault := self.hub.faults.take(path, "etags"):
            headers["ETag"] = f'"{fault.met}"'
        if fault := self.hub.faults.take(path, "headers"):
            headers |= fault.headers
        return headers

    def _send(self, name: str, path: str, data: bytes) -> None:
        faults = self.hub.faults
        if data and faults.take(path, "corrupt"):
            data = bytes([data[0] ^ 1]) + data[1:]
        throttle = faults.take(path, "throttle") if data else None
        cut = faults.take(path, "cut", lambda fault: fault.value < len(data))
        limit = int(cut.value) if cut else len(data)
        gate = faults.take(path, "gate") if data else None
        for start in range(0, limit, _BLOCK):
            if gate and start >= limit // 2:
                self.hub.gate.wait(600)
            block = data[start : min(start + _BLOCK, limit)]
            self.wfile.write(block)
            with self.hub.lock:
                self.hub.sent[name] = self.hub.sent.get(name, 0) + len(block)
            if throttle and self.hub.closing.wait(len(block) / throttle.value):
                return
        if cut:
            self.wfile.flush()
            self.close_connection = True
            # A reset, not a polite end: unsent bytes are dropped as on a broken line.
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _redirect(self, repo: str, path: str, headers: dict[str, str]) -> None:
        # Another host, as at the real hubs: no token may follow there.
        host = self.hub.storage or self.hub.url.replace("127.0.0.1", "localhost")
        target = f"{host}/cdn/{repo}/{urllib.parse.quote(path)}"
        self._reply(302, b"", {"Location": target} | headers)

    def _json(self, data: object, status: int = 200, kind: str = "application/json") -> None:
        self._reply(status, json.dumps(data).encode(), {"Content-Type": kind})

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _sibling(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": git_sha1(data)}
    if len(data) > LFS_BYTES:
        entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
    return entry


def _tree_entry(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(data),
        "oid": git_sha1(data),
    }
    if len(data) > LFS_BYTES:
        entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
    return entry

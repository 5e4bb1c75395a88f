"""What `yibu transcribe` does with answers, against a small HTTP server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from yibu.cli.api import Api
from yibu.cli.live import _Screen
from yibu.cli.verbs.speech import _answers
from yibu.errors import YibuError
from yibu.messages import message
from yibu.messages.language import CHINESE


class Refusing(BaseHTTPRequestHandler):
    """Answers before it has read the body, and closes."""

    def do_POST(self) -> None:
        self.send_response(413)
        body = b'{"error": {"message": "too large"}}'
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self.rfile.read(100_000)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Polyglot(BaseHTTPRequestHandler):
    """Refuses in the language that it is asked for."""

    def do_GET(self) -> None:
        body = b'{"error": {"message": "%b"}}' % self.headers["accept-language"].encode()
        self.send_response(404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Busy(BaseHTTPRequestHandler):
    """Refuses each file once, then gives back what it was sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        seen: set[bytes] = self.server.seen  # type: ignore[attr-defined]
        file = body.split(b"\r\n\r\n", 2)[2].rpartition(b"\r\n--")[0]
        if file not in seen:
            seen.add(file)
            self.send_response(429)
            self.send_header("retry-after", "1")
            file = b'{"error": {"message": "The queue is full"}}'
        else:
            self.send_response(200)
        self.send_header("content-length", str(len(file)))
        self.end_headers()
        self.wfile.write(file)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.seen = set()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_refusal_before_the_upload_is_read_is_heard(tmp_path: Path) -> None:
    file = tmp_path / "long.wav"
    file.write_bytes(bytes(30_000_000))
    with served(Refusing) as url:
        [(_, answer)] = _answers(Api(url), [file], {"model": "m"}, jobs=1)
    assert "too large (HTTP 413)" in str(answer)


def test_refusals_are_asked_for_in_the_terminals_language(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Polyglot) as url:
        with pytest.raises(YibuError, match=r"en \(HTTP 404\)"):
            Api(url).get("/")
        monkeypatch.setattr(message._CATALOGUES, "language", CHINESE)
        with pytest.raises(YibuError, match="zh-CN（HTTP 404）"):
            Api(url).get("/")


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.wav")
        files[-1].write_bytes(b"%d" % number * 3_000_000)
    with served(Busy) as url:
        answers = dict(_answers(Api(url), files, {"model": "m"}, jobs=3))
    assert list(answers) == files
    assert [answers[file] for file in files] == [file.read_bytes() for file in files]


def test_live_lines_name_their_speakers(capsys: pytest.CaptureFixture[str]) -> None:
    """Where speakers are told apart; else they are the final texts alone."""
    named = {"item_id": "1", "start": 0.5, "end": 1.25, "text": "hello", "speaker": "A"}
    for output_format, expected in (
        ("text", "A: hello\n"),
        ("json", '{"start": 0.5, "end": 1.25, "text": "hello", "speaker": "A"}\n'),
        ("srt", "1\n00:00:00,500 --> 00:00:01,250\nA: hello\n\n"),
    ):
        screen = _Screen(output_format)  # type: ignore[arg-type]
        screen.show("segment", named)
        screen.show("completed", {"item_id": "1", "transcript": "hello"})
        assert capsys.readouterr().out == expected
    screen = _Screen("text")
    screen.show("segment", {**named, "speaker": ""})
    screen.show("completed", {"item_id": "1", "transcript": "hello"})
    assert capsys.readouterr().out == "hello\n"

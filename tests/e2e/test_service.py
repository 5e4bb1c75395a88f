"""``yibu up`` as a service: what systemd is told, by the protocol of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.home import Home, fake
from tests.e2e.test_holder import activated
from tests.support.polling import until
from yibu.cli.verbs import systemd
from yibu.errors import NotRunningError


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(60)
        self.kept: list[socket.socket] = []

    def told(self) -> dict[str, str]:
        """The next message; the descriptor that came with it, if any, is kept."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 1)
        self.kept += map(self._own, descriptors)
        return dict(line.split("=", 1) for line in data.decode().splitlines())

    @staticmethod
    def _own(descriptor: int) -> socket.socket:
        return socket.socket(fileno=descriptor)

    def falls_silent(self) -> bool:
        """What was on its way comes yet; then nothing, for longer than two signs of life take."""
        self._socket.settimeout(1.5)
        try:
            while self.told() == {"WATCHDOG": "1"}:
                pass
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(60)
        return False

    def close(self) -> None:
        for one in (*self.kept, self._socket):
            one.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.close()


def test_systemd_is_told_ready_alive_and_stopping(
    home: Home, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    home.write([fake()])
    up = home.start("up")
    assert manager.told() == {"FDSTOREREMOVE": "1", "FDNAME": "gateway"}
    assert manager.told() == {"FDSTORE": "1", "FDNAME": "gateway"}
    assert manager.told() == {"READY": "1", "STATUS": "serving fake"}
    assert home.ps()["models"][0]["state"] == "ready"
    assert manager.told() == {"WATCHDOG": "1"}
    node = home.client.call("ping")["pid"]
    os.kill(node, signal.SIGSTOP)
    assert manager.falls_silent()  # which systemd answers with a restart
    os.kill(node, signal.SIGCONT)
    assert manager.told() == {"WATCHDOG": "1"}
    up.send_signal(signal.SIGTERM)
    until(lambda: manager.told() == {"STOPPING": "1"}, "stopping")
    up.communicate(timeout=60)
    assert up.returncode == 0


def test_connections_wait_while_systemd_starts_the_service_again(
    home: Home, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is killed, as for a watchdog that ran out; then systemd gives back what it kept."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    home.write([fake()])
    up = home.start("up")
    until(lambda: "READY" in manager.told(), "ready")
    (listener,) = manager.kept
    up.kill()
    home.kill_node()
    for engine in home.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.kill()
    up.communicate(timeout=60)
    with socket.create_connection(listener.getsockname(), 60) as waiting:
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        home.write([fake()], port=listener.getsockname()[1])
        again = Home(home.root, through=activated(listener))
        again.yibu("up", "-d", pass_fds=(listener.fileno(),))
        assert waiting.recv(15).startswith(b"HTTP/1.1 200")


def test_systemd_keeps_the_sockets_of_another_address_after_an_apply(
    home: Home, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the old address are let go; what systemd gives back after a crash of everything is asked for
    by the configuration."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "900000")
    home.write([fake()])
    up = home.start("up")
    until(lambda: "READY" in manager.told(), "ready")
    until(lambda: manager.told() == {"WATCHDOG": "1"}, "a sign of life")
    (first,) = manager.kept
    home.write([fake()], host="127.0.0.2", port=first.getsockname()[1])
    home.yibu("apply", "--yes")
    until(lambda: manager.told() == {"FDSTOREREMOVE": "1", "FDNAME": "gateway"}, "the old removed")
    assert manager.told() == {"FDSTORE": "1", "FDNAME": "gateway"}
    listener = manager.kept[-1]
    assert listener.getsockname() == ("127.0.0.2", first.getsockname()[1])
    with pytest.raises(ConnectionRefusedError):  # it listens no more, whoever has it
        socket.create_connection(first.getsockname(), 60)
    up.kill()
    home.kill_node()
    for engine in home.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.kill()
    up.communicate(timeout=60)
    with socket.create_connection(listener.getsockname(), 60) as waiting:
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.2\r\n\r\n")
        again = Home(home.root, through=activated(listener))
        closed = home.yibu("logs", "node").stdout.count("not asked for by the configuration")
        again.yibu("up", "-d", pass_fds=(listener.fileno(),))
        assert waiting.recv(15).startswith(b"HTTP/1.1 200")
        said = home.yibu("logs", "node").stdout
        assert said.count("not asked for by the configuration") == closed


def test_a_unit_can_be_printed_without_systemd(home: Home) -> None:
    path = home.write([fake()])
    unit = home.yibu("service", "install", "--user", "--print").stdout
    assert f"up -f {path}" in unit
    assert "Type=notify" in unit
    assert not list(home.root.rglob("*.service"))


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")
def test_without_systemd_it_says_what_to_write(home: Home) -> None:
    odd = Home(home.root / "5% of it", settings={"LONG_TOKEN": "", "HF_LONG": "x" * 1000})
    odd.root.mkdir()
    odd.write([fake()])
    done = odd.yibu("service", "install", code=1)
    assert done.stdout.startswith("@reboot cd ")
    assert "In /etc/rc.local, % has no backslash" in done.stderr
    assert "1,000 characters" in done.stderr
    assert (odd.root / "logs").is_dir()  # or the shell could not open the log
    assert "systemd does not run this machine" in done.stderr
    assert "crontab -e" in done.stderr


def test_who_runs_it_has_to_be_somebody(home: Home) -> None:
    home.write([fake()])
    words = ("service", "install", "--print", "--run-as", "no-such-user")
    assert "no user 'no-such-user'" in home.yibu(*words, "--system", code=2).stderr
    assert "leave --run-as out" in home.yibu(*words, "--user", code=2).stderr


def test_the_machines_unit_is_found_by_a_user_who_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own, other = (systemd._unit("yibu-of-a-test", system) for system in (os.geteuid() == 0, False))
    other.file.parent.mkdir(parents=True)
    other.file.touch()
    assert systemd._installed("yibu-of-a-test", None) == other
    if own.system:
        with pytest.raises(NotRunningError, match="of the machine"):
            systemd._installed("yibu-of-a-test", True)


def test_what_is_not_installed_is_neither_shown_nor_removed(home: Home) -> None:
    for verb in ("status", "remove"):
        refused = home.yibu("service", verb, "--user", "--name", "nobody", code=5)
        assert "yibu service install" in refused.stderr
    assert "no unit's name" in home.yibu("service", "status", "--name", "a/b", code=2).stderr
    assert "yibu init" in home.yibu("service", "install", code=2).stderr

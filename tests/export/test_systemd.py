"""Units that systemd itself reads, and environment files that a shell reads as systemd does."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yibu.cli.verbs.systemd import _write
from yibu.errors import UsageError
from yibu.export import systemd
from yibu.export.systemd import Service

PLAIN = "models"
ODD = '50 % of $HOME, "quoted" and 模型'


def service(directory: Path, **changed: object) -> Service:
    given: dict[str, object] = {
        "name": "yibu", "python": sys.executable, "file": directory / "yibu.yaml",
        "drain_timeout": 30.0, "environment_file": directory / "yibu.env", "system": True,
        "user": "root", **changed,
    }  # fmt: skip
    return Service(**given)  # type: ignore[arg-type]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
@pytest.mark.parametrize("directory", [PLAIN, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("kind", ["root", "user", "low port", "of a user"])
def test_systemd_takes_the_unit(tmp_path: Path, directory: str, kind: str) -> None:
    place = tmp_path / directory
    place.mkdir()
    one = service(
        place, system=kind != "of a user", user="root" if kind == "root" else "daemon",
        low_port=kind == "low port",
    )  # fmt: skip
    unit = tmp_path / "yibu-test.service"
    unit.write_text(systemd.unit(one))
    manager = ["--user"] if kind == "of a user" else []
    done = subprocess.run(
        ["systemd-analyze", "verify", *manager, str(unit)],
        capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, [])


SERVICE = {
    "Type=notify", "TimeoutStartSec=infinity", "TimeoutStopSec=90", "WatchdogSec=60",
    "FileDescriptorStoreMax=8", "Restart=on-failure", "RestartSec=5",
    "RestartPreventExitStatus=2 3 4", "SuccessExitStatus=130", "KillMode=mixed",
    "OOMPolicy=continue", "TasksMax=infinity", "UMask=0077",
}  # fmt: skip
USER_HARDENING = {"NoNewPrivileges=yes", "LockPersonality=yes", "SystemCallArchitectures=native"}
HARDENING = USER_HARDENING | {
    "ProtectSystem=full", "ProtectKernelTunables=yes", "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes", "ProtectControlGroups=yes", "ProtectClock=yes", "ProtectHostname=yes",
    "RestrictSUIDSGID=yes", "RestrictNamespaces=yes", "RestrictRealtime=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
}  # fmt: skip


@pytest.mark.parametrize("system", [True, False])
def test_it_is_watched_started_again_and_confined(tmp_path: Path, system: bool) -> None:
    """systemd takes a unit without any of these as well."""
    unit = systemd.unit(service(tmp_path, system=system))
    section = unit.partition("[Service]\n")[2].partition("[Install]")[0].splitlines()
    wanted = SERVICE | (HARDENING if system else USER_HARDENING)
    assert wanted - set(section) == set()


def test_only_root_keeps_capabilities(tmp_path: Path) -> None:
    assert "CapabilityBoundingSet" not in systemd.unit(service(tmp_path))
    assert "CapabilityBoundingSet=\n" in systemd.unit(service(tmp_path, user="daemon"))
    low = systemd.unit(service(tmp_path, user="daemon", low_port=True))
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in low


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(TEXT)
@settings(max_examples=30, deadline=None)
def test_a_shell_reads_the_environment_file(value: str) -> None:
    """Within double quotes systemd takes a backslash before " \\ ` $ alone for an escape, as sh does."""
    text = systemd.environment_file(service(Path("/x"), environment={"A": value}))
    script = f'{text}\nprintf %s "$A"'
    done = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True)
    assert done.stdout.decode() == value


def test_what_decides_about_a_start_is_carried_over() -> None:
    env = {"HF_TOKEN": "a", "https_proxy": "b", "MINE": "c", "OTHER": "d", "PATH": "e", "XDG_RUNTIME_DIR": "f"}  # fmt: skip
    assert systemd.carried(env, "api_keys: ['${env.MINE}']") == {
        "HF_TOKEN": "a", "MINE": "c", "PATH": "e", "https_proxy": "b",
    }  # fmt: skip


def test_a_crontab_gets_no_secret(tmp_path: Path) -> None:
    one = service(tmp_path / ODD, environment={"HF_TOKEN": "hf_x", "HF_HOME": "/a b"})
    line = systemd.crontab(one, Path("/var/log/b o.log"))
    assert "hf_x" not in line
    assert systemd.secrets(one) == ["HF_TOKEN"]
    assert "\\%" in line
    words = shlex.split(line.removeprefix("@reboot ").replace("\\%", "%"))
    assert words == [
        "cd", str(tmp_path / ODD), "&&", "env", "HF_HOME=/a b", sys.executable, "-P", "-m", "yibu",
        "up", "-d", "-f", str(tmp_path / ODD / "yibu.yaml"), ">>/var/log/b o.log", "2>&1",
    ]  # fmt: skip


def test_a_crontab_gets_no_password_of_a_proxy_and_no_second_line(tmp_path: Path) -> None:
    environment = {
        "https_proxy": "http://me:s3cret@proxy:3128",
        "PIP_INDEX_URL": "https://me:s3cret@index/simple",
        "VLLM_ODD": "a\n* * * * * rm -rf x",
        "no_proxy": "localhost",
    }
    one = service(tmp_path, environment=environment)
    line = systemd.crontab(one, Path("/var/log/boot.log"))
    assert "s3cret" not in line
    assert "\n" not in line
    assert "no_proxy=localhost" in line
    assert systemd.secrets(one) == ["https_proxy", "PIP_INDEX_URL", "VLLM_ODD"]


@pytest.mark.parametrize("field", ["file", "environment_file", "python", "user"])
@pytest.mark.parametrize("odd", ["a\nExecStartPre=/bin/evil", "a\rb", "a\x1bb", "a\udcffb"])
def test_nothing_begins_another_line_of_a_unit(tmp_path: Path, field: str, odd: str) -> None:
    value = odd if field in ("python", "user") else tmp_path / odd
    with pytest.raises(UsageError, match="cannot stand in a unit"):
        service(tmp_path, **{field: value})


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "yibu.env"
    _write(path, 'A="1"\n', 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UnicodeEncodeError):
        _write(path, 'A="2"\n\ud800', 0o600)
    assert path.read_text() == 'A="1"\n'
    assert list(tmp_path.iterdir()) == [path]

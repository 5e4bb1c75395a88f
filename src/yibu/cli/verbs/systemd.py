"""``yibu service``: ``yibu up`` under systemd, from boot on."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yibu.cli import output
from yibu.cli.exits import DONE, FAILED, NOT_RUNNING
from yibu.cli.options import FileOption, JsonOption, option
from yibu.errors import AlreadyRunningError, NotRunningError, UsageError, YibuError
from yibu.management.context import Context
from yibu.messages import tr
from yibu.paths import xdg_directory

if TYPE_CHECKING:
    from yibu.export.systemd import Service

NameOption = Annotated[str, option("The unit's name.")]
SystemOption = Annotated[
    bool | None,
    option("A unit of the machine (root's default), or of this user.", "--system/--user"),
]
_PROPERTIES = (
    "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "Result", "StatusText",
)  # fmt: skip
_CRON_LINE = 999
"""Characters of a crontab's line that every cron reads: MAX_COMMAND of Debian's is 1,000."""
_RUNS = Path("/run/systemd/system")
"""Exists while systemd is the machine's manager: sd_booted(3)."""


def register(app: typer.Typer) -> None:
    service = typer.Typer(
        no_args_is_help=True, help=tr("Run `yibu up` under systemd, from boot on.")
    )
    service.command("install")(install)
    service.command("status")(status)
    service.command("remove")(remove)
    app.add_typer(service, name="service")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of the machine's manager or of the user's: where it is kept, and what asks about it."""

    name: str
    system: bool
    context: Context

    @property
    def file(self) -> Path:
        if self.system:
            return Path("/etc/systemd/system") / f"{self.name}.service"
        return self._config / "systemd/user" / f"{self.name}.service"

    @property
    def environment(self) -> Path:
        base = Path("/etc") if self.system else self._config
        return base / "yibu" / f"{self.name}.env"

    @property
    def _config(self) -> Path:
        env = self.context.env
        return xdg_directory(env, "CONFIG", ".config")

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run systemctl for this manager.

        Raises:
            YibuError: it failed; its own words are in the message.
        """
        command = self.command(*words)
        try:
            return subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise YibuError("There is no systemctl here.") from error
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout).strip()
            raise YibuError(
                "{command} failed: {said}",
                command=" ".join(command),
                said=said,
                journal=self.journal,
                hint="See: {journal}",
            ) from error

    def command(self, *words: str) -> list[str]:
        return ["systemctl", *([] if self.system else ["--user"]), *words]

    @property
    def journal(self) -> str:
        return f"journalctl {'' if self.system else '--user '}-u {self.name} -n 50"


def _unit(name: str, system: bool | None) -> Unit:
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise UsageError(
            "{name!r} is no unit's name; expected letters, digits, - and _.", name=name
        )
    return Unit(name, os.geteuid() == 0 if system is None else system, Context.here())


def install(
    file: FileOption = None,
    name: NameOption = "yibu",
    system: SystemOption = None,
    run_as: Annotated[
        str | None, option("Who runs a unit of the machine (who called sudo, or root).")
    ] = None,
    show: Annotated[bool, option("Print the unit, and write nothing.", "--print")] = False,
) -> int:
    """Write a hardened unit for ./yibu.yaml, enable it and start it."""
    from yibu.export import systemd

    unit = _unit(name, system)
    here = unit.context
    service = _service(unit, here.find_file(file), run_as)
    if show:
        output.data(systemd.unit(service).rstrip())
        return DONE
    if not _RUNS.is_dir():
        return _without_systemd(service, here)
    _refuse_other_node(unit)
    _write(unit.environment, systemd.environment_file(service), 0o600)
    _write(unit.file, systemd.unit(service), 0o644)
    unit.systemctl("daemon-reload")
    unit.systemctl("enable", name)
    output.say(
        "Starting {name}; the first start downloads the models. Progress: {journal} -f",
        name=name,
        journal=unit.journal,
    )
    _begin(unit)
    output.say(
        "{name} is ready. It starts at boot, and again when it fails. See: yibu service status",
        name=name,
    )
    if not unit.system and not Path("/var/lib/systemd/linger", _user()).exists():
        output.say("It ends when you log out, until you type: loginctl enable-linger")
    return DONE


def _begin(unit: Unit) -> None:
    """Start it anew. Raises YibuError with what it said last, where it does not become ready."""
    try:
        unit.systemctl("restart", unit.name)
    except YibuError as error:
        field = "_SYSTEMD_UNIT" if unit.system else "_SYSTEMD_USER_UNIT"
        asked = ["journalctl", "-q", "-o", "cat", "-n", "8", f"{field}={unit.name}.service"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.rstrip()
        raise YibuError(
            "{name} did not become ready. It said:\n{said}",
            name=unit.name,
            said=said or error.message,
            journal=unit.journal,
            hint="See: {journal}",
        ) from error


def _service(unit: Unit, path: Path, run_as: str | None) -> Service:
    """What the unit says.

    Raises:
        ConfigError: the file could not be served.
        UsageError: it cannot run as that user.
    """
    from yibu.export import systemd
    from yibu.management.check import check_config

    here = unit.context
    user = run_as or here.env.get("SUDO_USER") or _user()
    if run_as and not unit.system:
        raise UsageError("A unit of this user runs as this user: leave --run-as out, or --user.")
    if not user.isdecimal() and user not in (entry.pw_name for entry in pwd.getpwall()):
        raise UsageError(
            "There is no user {user!r} on this machine.",
            user=user,
            hint="Name another one, or make it: sudo useradd {user}",
        )
    config, _ = check_config(here.load(path), here)
    return systemd.Service(
        name=unit.name,
        python=sys.executable,
        file=path.absolute(),
        drain_timeout=config.gateway.drain_timeout,
        environment_file=unit.environment,
        system=unit.system,
        user=user,
        low_port=config.gateway.port < 1024,
        environment=systemd.carried(here.env, path.read_text(encoding="utf-8", errors="replace")),
    )


def _without_systemd(service: Service, here: Context) -> int:
    from yibu.export import systemd

    manager = Path("/proc/1/comm").read_text(encoding="utf-8").strip() or tr("unknown")
    output.say(
        "systemd does not run this machine (its first process is {manager}). Without it "
        "a node can start at boot, and restarts its engines, but nothing restarts the "
        "node. Add this line with `crontab -e`, or what follows @reboot to /etc/rc.local:",
        manager=manager,
    )
    here.paths.make()  # the shell opens the log before yibu could make its folder
    line = systemd.crontab(service, here.paths.logs / "boot.log")
    output.data(line)
    if "%" in line:
        output.say("In /etc/rc.local, % has no backslash before it.")
    if len(line) > _CRON_LINE:
        output.say(
            "Some crons read no line of more than 1,000 characters: take /etc/rc.local there."
        )
    if left := systemd.secrets(service):
        output.say(
            "Its secrets, and what has several lines, are left out: set {left} there, or "
            "in files of mode 0600.",
            left=", ".join(left),
        )
    return FAILED


def _refuse_other_node(unit: Unit) -> None:
    """Refuse if another node runs, with which the service would fail; the service's own is restarted."""
    if not unit.file.exists() and unit.context.client.running():
        raise AlreadyRunningError(
            "A node runs here already, and the service would start another.",
            hint="Stop it first: yibu down",
        )


def _write(path: Path, text: str, mode: int) -> None:
    from yibu.export.systemd import MARK
    from yibu.files import write_whole

    try:
        if path.suffix == ".service" and path.exists() and MARK not in path.read_text():
            raise UsageError(
                "{path} is there already, and yibu did not write it.",
                path=path,
                hint="Choose another name: yibu service install --name NAME",
            )
        write_whole(path, text, mode)
    except OSError as error:
        raise YibuError(
            "{path} cannot be written: {strerror}.",
            path=path,
            strerror=error.strerror,
            hint="A unit of the machine needs root: sudo yibu service install; or take --user",
        ) from error


def status(
    name: NameOption = "yibu",
    system: SystemOption = None,
    as_json: JsonOption = False,
) -> int:
    """Tell whether the service is installed, enabled and running."""
    unit = _installed(name, system)
    shown = unit.systemctl("show", name, *(f"--property={one}" for one in _PROPERTIES)).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if as_json:
        output.data_json({"unit": str(unit.file), **found})
    else:
        text = tr(
            "{name}: {ActiveState} ({SubState}), {UnitFileState}, restarted {NRestarts} times.",
            name=name,
            **found,
        )
        running = found["ActiveState"] == "active"  # what it said before it ended stays there
        output.data(f"{text} {found['StatusText']}".rstrip() if running else text)
        output.flush()
        if found["Result"] != "success":
            output.say(
                "It ended with: {Result}. See: {journal}",
                Result=found["Result"],
                journal=unit.journal,
            )
        elif found["ActiveState"] == "inactive":
            output.say("Start it: {command}", command=" ".join(unit.command("start", name)))
    return DONE if found["ActiveState"] == "active" else NOT_RUNNING


def remove(name: NameOption = "yibu", system: SystemOption = None) -> None:
    """Stop the service and take its unit away; models and their files stay."""
    unit = _installed(name, system)
    unit.systemctl("disable", "--now", name)
    unit.file.unlink()
    unit.environment.unlink(missing_ok=True)
    unit.systemctl("daemon-reload")
    output.say("{name} is stopped and removed.", name=name)


def _installed(name: str, system: bool | None) -> Unit:
    """The unit of that name; one's own before the other's, where it is not said whose."""
    unit = _unit(name, system)
    for other in (unit, replace(unit, system=not unit.system)) if system is None else (unit,):
        if other.file.exists():
            return other
    kind = tr("the machine") if unit.system else tr("this user")
    raise NotRunningError(
        "No service {place} of {kind} is installed ({unit}).",
        place=unit.name,
        kind=kind,
        unit=unit.file,
        hint="Install it: yibu service install",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # one that the system has no name of
        return str(os.getuid())

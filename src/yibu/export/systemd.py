"""A systemd unit that keeps ``yibu up`` running, and alternatives without systemd.

Sources: systemd.service(5), systemd.exec(5), sd_notify(3).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yibu.errors import UsageError
from yibu.export.notes import comment
from yibu.messages import tr
from yibu.redaction import is_secret

MARK = "`yibu service install`"
"""Marks units written by yibu, in their first line."""

_CARRIED = re.compile(
    r"(YIBU|HF|HUGGINGFACE|MODELSCOPE|CUDA|NVIDIA|ASCEND|HIP|ROCR|VLLM|SGLANG|LLAMA|PIP|UV|OTEL)_\w+"
    r"|XDG_(CONFIG|DATA|CACHE|STATE)_HOME|PATH|LD_LIBRARY_PATH|LANG|LC_ALL|TMPDIR|SSL_CERT_(FILE|DIR)"
    r"|REQUESTS_CA_BUNDLE|(?i:(https?|all|no)_proxy)"
)
"""Variables that decide what ``yibu up`` does; a service starts with almost none of them."""
_ESCAPED_IN_FILES, _ESCAPE = re.compile(r'(["\\`$])'), r"\\\1"
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_REFERENCE = re.compile(r"\$\{env\.(\w+)\}")


@dataclass(frozen=True, slots=True)
class Service:
    """What to run, and as which user."""

    name: str
    python: str
    file: Path
    """The configuration."""
    drain_timeout: float
    """Seconds that requests in flight get when the service stops."""
    environment_file: Path
    system: bool
    """A unit of the machine; else one of this user's own manager."""
    user: str = ""
    """The user of a system unit."""
    low_port: bool = False
    """The gateway's port is below 1024, which only root may bind."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises UsageError for what would begin another line of the unit."""
        for text in (self.python, str(self.file), str(self.environment_file), self.user):
            if _UNFIT.search(text):
                raise UsageError(
                    "{text!a} cannot stand in a unit: it has a line break or another control "
                    "character, or is not UTF-8",
                    text=text,
                    hint="Rename it, then try again",
                )

    @property
    def command(self) -> tuple[str, ...]:
        """The foreground command; SIGTERM stops it."""
        return (self.python, "-P", "-m", "yibu", "up", "-f", str(self.file))


def carried(env: Mapping[str, str], document: str) -> dict[str, str]:
    """The variables that the service needs, those of the configuration's ``${env.NAME}`` among them."""
    wanted = set(_REFERENCE.findall(document))
    return {k: v for k, v in sorted(env.items()) if k in wanted or _CARRIED.fullmatch(k)}


def unit(service: Service) -> str:
    """The unit's text."""
    install = "multi-user.target" if service.system else "default.target"
    return "\n".join(
        [
            comment(
                tr(
                    "Written by yibu: `yibu service install` renews it, `yibu service remove` takes it away."
                )
            ),
            "[Unit]",
            f"Description={tr('yibu: the models of {file}', file=_specifiers(str(service.file)))}",
            *(_NETWORK if service.system else ()),
            "",
            "[Service]",
            "Type=notify",
            "NotifyAccess=main",
            *([f"User={service.user}"] if service.system else ()),
            f"WorkingDirectory={_specifiers(str(service.file.parent))}",
            f"EnvironmentFile={_specifiers(str(service.environment_file))}",
            f"ExecStart={' '.join(map(_word, service.command))}",
            comment(tr("The first start downloads the models.")),
            "TimeoutStartSec=infinity",
            f"TimeoutStopSec={service.drain_timeout + _STOP:.0f}",
            comment(tr("Sent for as long as the node answers.")),
            "WatchdogSec=60",
            comment(
                tr(
                    "The listening sockets, kept while the service is started again: connections wait in them."
                )
            ),
            "FileDescriptorStoreMax=8",
            "Restart=on-failure",
            "RestartSec=5",
            comment(tr("Wrong usage, no room, damaged files: to start again would not help.")),
            "RestartPreventExitStatus=2 3 4",
            "SuccessExitStatus=130",
            comment(
                tr("yibu ends its engines itself, in order; what is left after that is killed.")
            ),
            "KillMode=mixed",
            comment(tr("An engine that runs out of memory is started again by yibu.")),
            "OOMPolicy=continue",
            "TasksMax=infinity",
            "UMask=0077",
            *(_hardening(service) if service.system else _USER_HARDENING),
            "",
            "[Install]",
            f"WantedBy={install}",
            "",
        ]
    )


_STOP = 60.0
"""Seconds beside the drain that engines get to end."""

_NETWORK = ("Wants=network-online.target", "After=network-online.target")

_USER_HARDENING = ("NoNewPrivileges=yes", "LockPersonality=yes", "SystemCallArchitectures=native")
"""What a user's manager may set without privileges of its own."""


def _hardening(service: Service) -> list[str]:
    """What an engine needs stays: devices (GPUs), home directories (models, caches), memory that is
    written and then executed (compiled kernels)."""
    root = service.user == "root"
    bind = "CAP_NET_BIND_SERVICE" if service.low_port else ""
    capabilities = [f"CapabilityBoundingSet={bind}", f"AmbientCapabilities={bind}"]
    return [
        *_USER_HARDENING,
        *([] if root else capabilities),
        "ProtectSystem=full",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "DevicePolicy=auto",
    ]


def environment_file(service: Service) -> str:
    """``NAME="value"`` lines, which systemd and a shell read alike; secrets among them, so mode 0600."""
    return "".join(
        f'{name}="{_ESCAPED_IN_FILES.sub(_ESCAPE, value)}"\n'
        for name, value in service.environment.items()
    )


def blank_environment(names: Iterable[str]) -> str:
    """An environment file for another machine, where each variable is to get its value."""
    lines = (f'{name}=""\n' for name in names)
    form = tr('NAME="value" lines, of mode 0600; " \\ ` and $ in a value have a \\ before them.')
    return comment(form) + "\n" + "".join(lines)


def secrets(service: Service) -> list[str]:
    """The variables that ``crontab`` leaves out: everybody may read a command line, which has no room
    for a second line either."""
    return [k for k, v in service.environment.items() if is_secret(k, v) or _UNFIT.search(v)]


def crontab(service: Service, log: Path) -> str:
    """The line for ``crontab -e`` where there is no systemd, without secrets."""
    left_out = secrets(service)
    shown = [f"{k}={v}" for k, v in service.environment.items() if k not in left_out]
    words = [*(["env", *shown] if shown else []), *service.command]
    words.insert(words.index("up") + 1, "-d")
    line = f"cd {shlex.quote(str(service.file.parent))} && {shlex.join(words)}"
    return f"@reboot {line} >>{shlex.quote(str(log))} 2>&1".replace("%", "\\%")


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """One word of ExecStart: quoted where needed, no ``%`` specifier and no ``$`` variable in it."""
    text = _specifiers(text).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""yibu's directories, defined in one place and built once at the edge."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from yibu.errors import ConfigError, YibuError
from yibu.messages import tr

# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS, the final NUL included.
_SOCKET_PATH_LIMIT = 100

_PATHS = (
    "YIBU_HOME", "YIBU_API_KEY_FILE", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH",
    "MODELSCOPE_CACHE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "PIP_CONFIG_FILE", "PIP_CERT", "UV_CACHE_DIR",
)  # fmt: skip
"""Variables that name a file or directory, and that yibu or its programs read."""
_LISTS = {"SSL_CERT_DIR": ":", "PIP_FIND_LINKS": " "}


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories of one home. Two nodes never share one."""

    store: Path
    """Verified models, and the records that say what was verified."""
    environments: Path
    """One virtual environment an engine and pinned set."""
    compiled: Path
    """What engines compiled, by the name of their environment's directory."""
    logs: Path
    state: Path
    """What a restarted node needs: lock, replicas, keys. Mode 0700."""
    runtime: Path
    """The control socket. Mode 0700."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Paths:
        """``YIBU_HOME`` moves everything; without it the XDG directories are used.

        Raises:
            ConfigError: this user has no home directory, and ``YIBU_HOME`` names none.
        """
        if root := own_home(env):
            data = cache = state = root
        else:
            data = xdg_directory(env, "DATA", ".local/share") / "yibu"
            cache = xdg_directory(env, "CACHE", ".cache") / "yibu"
            state = xdg_directory(env, "STATE", ".local/state") / "yibu"
        return cls(
            store=data / "store",
            environments=cache / "environments",
            compiled=cache / "compiled",
            logs=state / "logs",
            state=state / "state",
            runtime=_runtime_directory(state / "run"),
        )

    @property
    def control_socket(self) -> Path:
        return self.runtime / "control.sock"

    @property
    def node_lock(self) -> Path:
        return self.state / "node.lock"

    @property
    def history(self) -> Path:
        """The file with what was served before."""
        return self.state / "history.json"

    @property
    def node_log(self) -> Path:
        return self.logs / "node.log"

    def model_log(self, replica: str) -> Path:
        return self.logs / os.fsdecode(f"{replica}.log".encode())

    def make(self) -> None:
        """Create the directories that do not exist yet, private to the owner.

        Raises:
            YibuError: one of them cannot be made, or is not this user's.
        """
        try:
            for directory in (self.store, self.environments, self.logs):
                directory.mkdir(parents=True, exist_ok=True)
            for directory in (self.state, self.runtime):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                if stat.S_IMODE(directory.stat().st_mode) != 0o700:
                    directory.chmod(0o700)
        except OSError as error:
            raise YibuError(
                "yibu cannot keep its files where it should: {error}",
                error=describe(error),
                hint="Choose another place: YIBU_HOME=/some/directory yibu …",
            ) from error


_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def log_name(file: Path) -> str:
    """Whose log it is: a replica, or the node. Names of files are UTF-8, whatever the locale encodes."""
    return os.fsencode(file.name).decode(errors="replace").rpartition(".log")[0]


def file_error(error: OSError) -> YibuError:
    """An error of the file system, with what to do about it."""
    return YibuError(describe(error), hint=remedy(error))


def describe(error: OSError) -> str:
    """An error of the file system as a sentence that names the file."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return tr("{reason}.", reason=reason)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        file = next((p for p in Path(os.fsdecode(error.filename)).parents if p.is_file()), None)
        return tr(
            "{file} is a file; a directory was expected there.",
            file=file or os.fsdecode(error.filename),
        )
    return tr("{file}: {reason}.", file=os.fsdecode(error.filename), reason=reason)


def remedy(error: OSError) -> str:
    """A hint for an error of the file system; empty where its sentence says it all."""
    if error.filename is None:
        return ""
    file = Path(os.fsdecode(error.filename))
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return tr("Make room, then try again: df -h {parent}", parent=file.parent)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return tr(
            "See whose it is, or choose another directory: ls -ld {directory}",
            directory=file.parent,
        )
    if error.errno in _NO_LOCKS:
        return tr(
            "Its file system cannot lock files. Choose a directory on another one (YIBU_HOME=DIR), "
            "or mount it with locks; NFS: -o local_lock=flock",
        )
    if error.errno == errno.ENOENT and not file.parent.is_dir():
        return tr("Make its directory first: mkdir -p {directory}", directory=file.parent)
    return ""


def own_home(env: Mapping[str, str]) -> Path | None:
    """What ``YIBU_HOME`` names, ``~`` and ``$VAR`` in it filled in: systemd and .env files do not.

    Raises:
        ConfigError: it cannot be told which directory that is.
    """
    text = env.get("YIBU_HOME", "")
    filled = Template(text).safe_substitute(env)
    if filled.startswith("$"):
        raise ConfigError(
            "YIBU_HOME is {text}, and that variable is not set.",
            text=text,
            hint="Name one: YIBU_HOME=/some/directory yibu …",
        )
    return expanded(filled, env).absolute() if filled else None


def with_absolute_paths(env: Mapping[str, str], directory: Path) -> dict[str, str]:
    """The environment for this command and for the node, whose working directory is another one: paths
    relative to ``directory`` are written out."""
    found = dict(env)
    for name in _PATHS:
        filled_in_later = name.startswith(("YIBU_HOME", "HF_", "HUGGING")) and "$" in env.get(
            name, ""
        )
        if env.get(name) and not filled_in_later:
            found[name] = _absolute(env[name], directory)
    for name, separator in _LISTS.items():
        if env.get(name):
            places = env[name].split(separator)
            found[name] = separator.join(_absolute(place, directory) for place in places if place)
    return found


def _absolute(place: str, directory: Path) -> str:
    return place if place.startswith(("/", "~")) or "://" in place else str(directory / place)


def xdg_directory(env: Mapping[str, str], kind: str, usual: str) -> Path:
    """``XDG_<kind>_HOME``, or ``usual`` in the home directory: a relative path there is invalid and
    ignored (XDG Base Directory Specification).

    Raises:
        ConfigError: this user has no home directory.
    """
    named = Path(env.get(f"XDG_{kind}_HOME", ""))
    return named if named.is_absolute() else expanded("~", env) / usual


def expanded(path: str, env: Mapping[str, str]) -> Path:
    """The path, with ``~`` as the environment has it.

    Raises:
        ConfigError: no such user is known, or this one has no home directory.
    """
    if (path == "~" or path.startswith("~/")) and env.get("HOME"):
        return Path(env["HOME"]) / path[2:]
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # no HOME, and the system does not know this user
        raise ConfigError(
            "{path} is no directory: {error}",
            path=path,
            error=error,
            hint="Name one: YIBU_HOME=/some/directory yibu …",
        ) from error


def at_home(path: str) -> Path:
    """The path, with ``~`` filled in where that user is known; as it is written where not: then
    nothing is there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _runtime_directory(preferred: Path) -> Path:
    """Use ``preferred`` unless a socket in it would be too long a path for the kernel.

    The other place does not follow TMPDIR: every command has to find the same node.
    """
    if len(os.fsencode(preferred / "control.sock")) <= _SOCKET_PATH_LIMIT:
        return preferred
    digest = hashlib.sha256(os.fsencode(preferred)).hexdigest()[:12]
    return Path(f"/tmp/yibu-{os.getuid()}-{digest}")  # noqa: S108 - mode 0700, and checked by chmod

"""Makes, lists and removes engine environments.

An environment is a directory named after the engine and a digest of all that decides its
contents: a changed lock, version or Python makes a new one beside the old. It is made in a
temporary directory and renamed when whole, so a directory with a proper name is always usable.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import yibu
from yibu.environments import libraries, toolchain
from yibu.environments.disk import (
    RECORD,
    EnvironmentInfo,
    add_alias,
    is_usable,
    link_libraries,
    read_record,
    site_packages,
    tree_size,
    write_record,
)
from yibu.environments.installer import Installer, InstallJob
from yibu.environments.progress import EnvironmentProgressCallback, ProgressReader
from yibu.environments.specs import SPECS, EnvironmentSpec
from yibu.environments.uv import UvCancelledError
from yibu.environments.uv_settings import UvSettings
from yibu.errors import EnvironmentSetupError, UsageError
from yibu.files import try_lock, write_whole
from yibu.units import sizes_apart

_LOCK_POLL = 0.2
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class EnvironmentManager:
    """Blocking; safe to use from several threads and processes at once.

    ``env`` is the process's environment: proxies, certificates and uv's own settings come from
    it. ``package`` is the yibu package directory that environments see, so that yibu's launchers
    run in them. ``compiled`` has, by the names of environments' directories, what their engines
    compiled: it goes when they go.
    """

    def __init__(
        self,
        directory: Path,
        index: UvSettings,
        *,
        env: Mapping[str, str],
        package: Path | None = None,
        specs: Mapping[str, EnvironmentSpec] = SPECS,
        compiled: Path | None = None,
    ) -> None:
        self._directory = directory.absolute()  # uv works in another directory
        self._compiled = compiled
        self._installer = Installer(directory.absolute(), index, env)
        self._env = env
        self._package = package or Path(yibu.__file__).resolve().parent
        self._specs = specs

    @property
    def env(self) -> Mapping[str, str]:
        """The variables it was made with."""
        return self._env

    def ensure(
        self,
        name: str,
        *,
        progress: EnvironmentProgressCallback | None = None,
        wheels: Path | None = None,
        cancel: threading.Event | None = None,
    ) -> Path:
        """The interpreter of a whole environment, made first if need be.

        ``wheels`` is a folder to install from, without any index.

        Raises:
            UsageError: no environment of that name is known.
            EnvironmentSetupError: it cannot be made; the message says why, the hint what to do.
        """
        spec = self._spec(name)
        return self._make(spec, self.chosen_version(name), progress, wheels, cancel)

    def require_libraries(self, name: str) -> None:
        """Refuse an environment that cannot run on this machine, before anything is fetched for it.

        Raises:
            UsageError: no environment of that name is known.
            EnvironmentSetupError: a shared library of the system is missing.
        """
        libraries.require(name, self._spec(name).system)

    def install(
        self,
        name: str,
        *,
        version: str | None = None,
        progress: EnvironmentProgressCallback | None = None,
        wheels: Path | None = None,
        cancel: threading.Event | None = None,
    ) -> Path:
        """``ensure``, and choose the version used from now on; None goes back to the pinned set.

        Raises:
            UsageError, EnvironmentSetupError: as ``ensure``.
        """
        spec = self._spec(name)
        interpreter = self._make(spec, version, progress, wheels, cancel)
        choice = self._choice_file(name)
        if version is None:
            choice.unlink(missing_ok=True)
        else:
            write_whole(choice, version)
        return interpreter

    def list(self) -> list[EnvironmentInfo]:
        """Every whole environment on disk, older ones too."""
        if not self._directory.is_dir():
            return []
        found = []
        for record in sorted(self._directory.glob(f"*/{RECORD}")):
            if record.parent.name.startswith("."):
                continue
            info = read_record(record)
            if info is not None:
                found.append(self._with_current(info, record.parent))
        return found

    def remove(self, name: str) -> int:
        """Remove every environment of that name; returns the bytes freed, 0 where there was none.

        Raises:
            UsageError: no environment of that name is known.
        """
        spec = self._spec(name)
        freed = 0
        with self._locked(spec, ProgressReader(name, None), None):
            for info in self.list():
                if info.name == name:
                    # Renamed first: what is half deleted must not look whole.
                    doomed = self._temporary(name)
                    Path(info.path).rename(doomed / "removed")
                    freed += info.size + info.compiled
            self._choice_file(name).unlink(missing_ok=True)
            self._sweep(name)
            self._remove_compiled(name)
        return freed

    def _remove_compiled(self, name: str) -> None:
        """Remove what engines compiled whose environments are gone."""
        for left in self._compiled.glob(f"{name}-*") if self._compiled else ():
            if not (self._directory / left.name).exists():
                shutil.rmtree(left, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Where ``ensure`` puts, or would put, the environment.

        Raises:
            UsageError: no environment of that name is known.
        """
        spec = self._spec(name)
        return self._target(spec, self.chosen_version(name))

    def chosen_version(self, name: str) -> str | None:
        """The version that ``install`` was asked for; None: the pinned one."""
        try:
            return self._choice_file(name).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    # -- what an environment is called ------------------------------------------------------

    def _spec(self, name: str) -> EnvironmentSpec:
        try:
            return self._specs[name]
        except KeyError:
            raise UsageError(
                "there is no environment named {name!r}; known: {specs}",
                name=name,
                specs=", ".join(self._specs),
                hint="List them with: yibu engine ls",
            ) from None

    def _target(self, spec: EnvironmentSpec, version: str | None) -> Path:
        contents = spec.lock
        if version is not None:
            contents = f"{spec.package}=={version}\n{spec.requirements}\n{spec.overrides}"
        python = f"{sys.implementation.name}-{sys.version_info[0]}.{sys.version_info[1]}"
        platform_tag = f"{sys.platform}-{platform.machine()}"
        digest = hashlib.sha256("\0".join((contents, python, platform_tag)).encode()).hexdigest()
        return self._directory / f"{spec.name}-{digest[:12]}"

    def _choice_file(self, name: str) -> Path:
        return self._directory / f".{name}.version"

    def _with_current(self, info: EnvironmentInfo, path: Path) -> EnvironmentInfo:
        spec = self._specs.get(info.name)
        current = spec is not None and path == self._target(spec, self.chosen_version(info.name))
        compiled = tree_size(self._compiled / path.name) if self._compiled else 0
        values = {**asdict(info), "path": str(path), "current": current, "compiled": compiled}
        return EnvironmentInfo(**values)

    # -- making one -------------------------------------------------------------------------

    def _make(
        self,
        spec: EnvironmentSpec,
        version: str | None,
        progress: EnvironmentProgressCallback | None,
        wheels: Path | None,
        cancel: threading.Event | None,
    ) -> Path:
        libraries.require(spec.name, spec.system)
        target = self._target(spec, version)
        reader = ProgressReader(spec.name, progress)
        if not is_usable(target):
            if spec.build is not None:
                toolchain.require(spec.name, spec.build.needs, self._env)
            self._make_directory()
            with self._locked(spec, reader, cancel) as lock:
                # Another process may have made it while this one waited for the lock.
                if not is_usable(target):
                    self._sweep(spec.name)
                    self._check_disk(spec)
                    self._build(spec, version, target, InstallJob(reader, wheels, cancel, lock))
        self._link_package(target)
        reader.enter("done")
        return target / "bin" / "python"

    def _build(
        self, spec: EnvironmentSpec, version: str | None, target: Path, job: InstallJob
    ) -> None:
        work = self._temporary(spec.name)
        made = work / target.name
        try:
            job.reader.enter("creating")
            self._installer.run(
                spec, job, "venv", "--relocatable", "--python", sys.executable, str(made)
            )
            job.reader.enter("resolving")
            self._installer.install(spec, version, work, made, job)
            add_alias(spec, made)
            link_libraries(spec, made)
            write_record(spec, made, target)
            shutil.rmtree(target, ignore_errors=True)  # only ever there when it is unusable
            made.rename(target)
        except OSError as error:
            raise EnvironmentSetupError(
                "environment {spec}: {strerror}: {filename}",
                spec=spec.name,
                strerror=error.strerror or error,
                filename=error.filename or self._directory,
                hint="Check free space and permissions there, or move it with YIBU_HOME=/other/disk",
                cause="disk_full" if error.errno in _FULL else "environment",
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _check_disk(self, spec: EnvironmentSpec) -> None:
        free = shutil.disk_usage(self._directory).free
        if free < spec.disk:
            needed, left = sizes_apart(spec.disk, free)
            raise EnvironmentSetupError(
                "environment {spec} needs about {needed}, and {left} are free in {directory}",
                spec=spec.name,
                needed=needed,
                left=left,
                directory=self._directory,
                hint="Free some space (yibu gc), or move everything with YIBU_HOME=/larger/disk",
                cause="disk_full",
            )

    def _link_package(self, target: Path) -> None:
        """Make yibu importable in the environment, wherever yibu is installed today."""
        link = site_packages(target) / "yibu"
        with contextlib.suppress(OSError):
            if link.readlink() == self._package:
                return
        new = link.with_name(f".yibu-{os.getpid()}-{threading.get_ident()}")
        try:
            new.symlink_to(self._package, target_is_directory=True)
            new.replace(link)
        except OSError as error:
            raise EnvironmentSetupError(
                "the environment in {target} cannot be written: {error}",
                target=target,
                error=error,
                hint="Check its owner and permissions, or remove it with: yibu engine rm NAME",
            ) from error

    # -- directories and locks ----------------------------------------------------------------

    def _make_directory(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentSetupError(
                "the directory for environments cannot be made: {error}",
                error=error,
                hint="Check its permissions, or move it with YIBU_HOME=/other/place",
            ) from error

    def _temporary(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f".making-{name}+", dir=self._directory))

    def _sweep(self, name: str) -> None:
        """Remove what interrupted installs left. Under the name's lock nobody else has any."""
        for leftover in self._directory.glob(f".making-{name}+*"):
            shutil.rmtree(leftover, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(
        self, spec: EnvironmentSpec, reader: ProgressReader, cancel: threading.Event | None
    ) -> Iterator[int]:
        """Hold the name's lock file; yields its descriptor."""
        self._make_directory()
        path = self._directory / f".{spec.name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            waited, cancel = False, cancel or threading.Event()
            while not try_lock(path, descriptor):
                if not waited:
                    reader.enter("waiting")
                    waited = True
                if cancel.wait(_LOCK_POLL):
                    raise UvCancelledError(
                        "waiting for the environment {spec} was cancelled", spec=spec.name
                    )
            yield descriptor
        finally:
            os.close(descriptor)

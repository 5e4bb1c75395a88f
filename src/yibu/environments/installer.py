"""Installs an environment's packages with uv: wheels, or a source that is compiled."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from yibu.environments.progress import ProgressReader
from yibu.environments.source_build import (
    TOOLS,
    cache_key,
    link_program,
    split_lock,
    variables,
)
from yibu.environments.specs import EnvironmentSpec, SourceBuild
from yibu.environments.uv import WHEELS_HINT, UvFailedError, run_uv
from yibu.environments.uv_settings import UvSettings
from yibu.messages import filled, tr
from yibu.pipconfig import PYPI
from yibu.proxies import Proxies


@dataclass(frozen=True, slots=True)
class InstallJob:
    """The constant parameters of making one environment."""

    reader: ProgressReader
    wheels: Path | None
    cancel: threading.Event | None
    lock: int
    variables: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Installer:
    """uv, with the indexes, proxies and variables that it is run with."""

    directory: Path
    """The directory of the environments, where uv runs."""
    index: UvSettings
    env: Mapping[str, str]

    def install(
        self, spec: EnvironmentSpec, version: str | None, work: Path, made: Path, job: InstallJob
    ) -> None:
        """Install the pinned set as it stands, or another version resolved afresh."""
        if spec.build is not None:
            self._compile(spec, spec.build, version, work, made, job)
            return
        arguments = ["pip", "install", "--python", str(made / "bin" / "python")]
        requirements = work / "requirements.txt"
        if version is None:
            requirements.write_text(spec.lock, encoding="utf-8")
            # The lock is complete: what it leaves out is left out on purpose.
            arguments += ["--no-deps", "-r", str(requirements)]
        else:
            requirements.write_text(spec.requirements, encoding="utf-8")
            overrides = work / "overrides.txt"
            overrides.write_text(f"{spec.overrides}\n{spec.package}=={version}\n", encoding="utf-8")
            arguments += ["--overrides", str(overrides), "-r", str(requirements)]
        if spec.bytecode:
            arguments.append("--compile-bytecode")
        arguments += ["--only-binary", ":all:"]
        for package in spec.source_only:
            arguments += ["--no-binary", package]
        try:
            self.run(spec, job, *arguments)
        except UvFailedError as error:
            if not (spec.cpu_torch and job.wheels is None and error.reason == "not_on_index"):
                raise
            self.run(spec, job, *arguments, "--torch-backend", "cpu")

    def _compile(
        self,
        spec: EnvironmentSpec,
        build: SourceBuild,
        version: str | None,
        work: Path,
        made: Path,
        job: InstallJob,
    ) -> None:
        """Install the tools of the build, then the package from its source, and take the tools away."""
        tools, source = (work / "tools.txt", work / "source.txt")
        for file, text in zip((tools, source), split_lock(spec, version), strict=True):
            file.write_text(text, encoding="utf-8")
        pip = ("pip", "install", "--python", str(made / "bin" / "python"), "--no-deps")
        self.run(spec, job, *pip, "--only-binary", ":all:", "-r", str(tools))
        pinned = version or source.read_text(encoding="utf-8").partition("==")[2].split()[0]
        job = replace(
            job,
            variables=variables(build, pinned, made / "bin", self.env),
            log=self.directory / f".{spec.name}-build.log",
        )
        with_source = ("--no-binary", spec.package, "--no-build-isolation", "-r", str(source))
        self.run(spec, job, *pip, "-v", "-C", f"yibu={cache_key(spec, self.env)}", *with_source)
        job = replace(job, log=None)
        self.run(spec, job, "pip", "uninstall", "--python", pip[3], *TOOLS)
        link_program(spec, made)

    def run(self, spec: EnvironmentSpec, job: InstallJob, *arguments: str) -> None:
        env = {**self.env, **self.index.uv_environment(self.env), **job.variables}
        proxies = Proxies.from_env(env)
        if proxies.by_scheme:
            env = {name: value for name, value in env.items() if name.lower() != "all_proxy"}
            env |= proxies.environment()
        extra: list[str] = []
        if job.wheels is not None and arguments[:2] == ("pip", "install"):
            for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
                env.pop(name, None)
            env.pop("UV_FIND_LINKS", None)
            extra = ["--no-index", "--find-links", str(job.wheels.absolute())]
        try:
            run_uv(
                [*arguments, *extra],
                environment=spec.name,
                env=env,
                # Not the caller's: a uv.toml or pyproject.toml there is about another project.
                cwd=self.directory,
                reader=job.reader,
                cancel=job.cancel,
                lock=job.lock,
                log=job.log,
            )
        except UvFailedError as error:
            if env.get("UV_OFFLINE") and error.reason in ("not_on_index", "unreachable"):
                # uv says so of some packages, and of others that they do not exist.
                raise UvFailedError(
                    tr(
                        "environment {spec}: not all of its packages are in uv's cache, and "
                        "only local files are allowed (offline)",
                        spec=spec.name,
                    ),
                    hint=tr(
                        "Leave --offline out (unset YIBU_OFFLINE), or {otherwise}",
                        otherwise=filled(WHEELS_HINT, environment=spec.name),
                    ),
                    reason=error.reason,
                ) from error
            index = env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or PYPI
            dead = proxies.fault(index) if error.reason == "unreachable" else ""
            if not dead:
                raise
            raise UvFailedError(
                tr("environment {spec}: {dead}", spec=spec.name, dead=dead),
                hint=tr(
                    "Start the proxy, correct or unset the variable, or name hosts in "
                    "NO_PROXY that are reached without it"
                ),
                reason=error.reason,
            ) from error

"""Environments made by the real uv from a folder of tiny wheels; no network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.small_disks import with_disks
from tests.support.polling import until
from tiny_wheels import LocalSpec, build_wheel, locked

import yibu
from yibu.environments.disk import LIBRARIES, compiled_by
from yibu.environments.manager import EnvironmentManager
from yibu.environments.progress import EnvironmentProgress
from yibu.environments.specs import SPECS, environment_named, environments_of
from yibu.environments.uv import UvCancelledError
from yibu.environments.uv_settings import UvSettings
from yibu.errors import EnvironmentSetupError, UsageError

NAME = "tiny"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """No index, no configuration, and a cache of its own: what is not in the folder fails."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": str(tmp_path), "UV_CACHE_DIR": str(tmp_path / "uv-cache")}


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return tmp_path / "wheels"


@pytest.fixture
def spec(wheels: Path) -> LocalSpec:
    wheel = build_wheel(wheels, NAME, "1.0", {"tiny.py": b"VALUE = 1\n"})
    return LocalSpec(NAME, locked(wheel, NAME, "1.0"), NAME)


@pytest.fixture
def make(tmp_path: Path, env: dict[str, str]) -> Callable[..., EnvironmentManager]:
    def build(spec: LocalSpec, directory: Path | None = None) -> EnvironmentManager:
        return EnvironmentManager(
            directory or tmp_path / "environments",
            UvSettings(),
            env=env,
            specs={spec.name: spec},
        )

    return build


def run(python: Path, code: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, env=clean
    ).stdout.strip()


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.glob(".making-*")]


def test_made_once_then_only_found(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, wheels: Path
) -> None:
    manager = make(spec)
    reports: list[EnvironmentProgress] = []
    python = manager.ensure(NAME, wheels=wheels, progress=reports.append)
    assert run(python, "import tiny; print(tiny.VALUE)") == "1"
    phases = [report.phase for report in reports]
    assert phases[0] == "creating"
    assert phases[-1] == "done"
    assert {"resolving", "installing"} <= set(phases)
    assert leftovers(python.parents[2]) == []

    shutil.rmtree(wheels)  # a second call needs nothing any more
    reports.clear()
    assert manager.ensure(NAME, progress=reports.append) == python
    assert [report.phase for report in reports] == ["done"]


@pytest.mark.parametrize("bytecode", [True, False])
def test_byte_code_is_made_where_the_spec_says_so(
    make: Callable[..., EnvironmentManager],
    wheels: Path,
    env: dict[str, str],
    spec: LocalSpec,
    bytecode: bool,
) -> None:
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # as images have it
    python = make(LocalSpec(NAME, spec.lock, NAME, bytecode=bytecode)).ensure(NAME, wheels=wheels)
    assert [path.name for path in python.parents[1].rglob("tiny.*.pyc")] == (
        [f"tiny.{sys.implementation.cache_tag}.pyc"] if bytecode else []
    )


def test_what_was_compiled_goes_with_its_environment(
    tmp_path: Path, env: dict[str, str], spec: LocalSpec, wheels: Path
) -> None:
    compiled = tmp_path / "compiled"
    manager = EnvironmentManager(
        tmp_path / "environments", UvSettings(), env=env, specs={NAME: spec}, compiled=compiled
    )
    python = manager.ensure(NAME, wheels=wheels)
    kept = compiled_by(compiled, python)
    for directory in (kept, compiled / f"{NAME}-gone-long-ago", compiled / "other-1"):
        directory.mkdir(parents=True)
        (directory / "kernel.so").write_bytes(bytes(1000))
    (info,) = manager.list()
    assert info.compiled == 1000
    assert manager.remove(NAME) == info.size + 1000
    assert [path.name for path in compiled.iterdir()] == ["other-1"]


def test_yibu_is_importable_and_the_core_is_not(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, wheels: Path
) -> None:
    python = make(spec).ensure(NAME, wheels=wheels)
    found = run(python, "import yibu, yibu.launchers.llama_cpp; print(yibu.__version__)")
    assert found == yibu.__version__
    assert run(python, "import importlib.util as u; print(u.find_spec('pydantic'))") == "None"


def test_the_link_follows_yibu(
    tmp_path: Path,
    env: dict[str, str],
    make: Callable[..., EnvironmentManager],
    spec: LocalSpec,
    wheels: Path,
) -> None:
    python = make(spec).ensure(NAME, wheels=wheels)
    moved = tmp_path / "elsewhere" / "yibu"
    moved.mkdir(parents=True)
    (moved / "__init__.py").write_text("__version__ = 'moved'\n")
    manager = EnvironmentManager(
        python.parents[2], UvSettings(), env=env, package=moved, specs={NAME: spec}
    )
    assert manager.ensure(NAME) == python
    assert run(python, "import yibu; print(yibu.__version__)") == "moved"


def test_a_new_lock_makes_a_new_environment_beside_the_old(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, wheels: Path
) -> None:
    manager = make(spec)
    old = manager.ensure(NAME, wheels=wheels)
    wheel = build_wheel(wheels, NAME, "2.0", {"tiny.py": b"VALUE = 2\n"})
    manager = make(LocalSpec(NAME, locked(wheel, NAME, "2.0"), NAME))
    new = manager.ensure(NAME, wheels=wheels)
    assert new != old
    assert run(old, "import tiny; print(tiny.VALUE)") == "1"
    assert run(new, "import tiny; print(tiny.VALUE)") == "2"
    listed = {info.version: info.current for info in manager.list()}
    assert listed == {"1.0": False, "2.0": True}


def test_another_version_is_chosen_and_unchosen(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, wheels: Path
) -> None:
    manager = make(spec)
    build_wheel(wheels, NAME, "3.0", {"tiny.py": b"VALUE = 3\n"})
    pinned = manager.ensure(NAME, wheels=wheels)
    chosen = manager.install(NAME, version="3.0", wheels=wheels)
    assert run(chosen, "import tiny; print(tiny.VALUE)") == "3"
    assert make(spec).ensure(NAME) == chosen  # remembered by a new process too
    assert manager.install(NAME) == pinned
    assert manager.ensure(NAME) == pinned


def test_a_library_of_another_package_stands_under_the_name_that_is_looked_for(
    make: Callable[..., EnvironmentManager], wheels: Path
) -> None:
    """Whatever the version, and where the environment was made before it was moved."""
    lock = ""
    for version in ("1.0", "2.0"):
        wheel = build_wheel(wheels, NAME, version, {"tiny.py": b""})
        lock = lock or locked(wheel, NAME, version)
    files = {"carrier.libs/libomp-0af3.so.1.0.0": b"\x7fELF"}
    lock += locked(build_wheel(wheels, "carrier", "1.0", files), "carrier", "1.0")
    spec = LocalSpec(
        NAME, lock, NAME, asked=f"{NAME}==1.0\ncarrier", libraries={"libomp.so.1": "carrier.libs/*"}
    )
    manager = make(spec)
    made = {
        manager.ensure(NAME, wheels=wheels),
        manager.install(NAME, version="2.0", wheels=wheels),
    }
    assert len(made) == 2
    for python in made:
        library = python.parents[1] / LIBRARIES / "libomp.so.1"
        assert library.read_bytes() == b"\x7fELF"
        assert not library.readlink().is_absolute()


def test_remove_frees_every_version(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, wheels: Path
) -> None:
    manager = make(spec)
    python = manager.ensure(NAME, wheels=wheels)
    size = manager.list()[0].size
    assert size > 0
    assert manager.remove(NAME) == size
    assert not python.exists()
    assert manager.list() == []
    assert leftovers(python.parents[2]) == []
    assert manager.remove(NAME) == 0


def test_a_vanished_base_interpreter_makes_it_anew(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, wheels: Path
) -> None:
    manager = make(spec)
    python = manager.ensure(NAME, wheels=wheels)
    python.unlink()
    python.symlink_to("/no/such/python")
    assert manager.ensure(NAME, wheels=wheels) == python
    assert run(python, "import tiny; print(tiny.VALUE)") == "1"


def test_unknown_name_lists_the_known(
    make: Callable[..., EnvironmentManager], spec: LocalSpec
) -> None:
    with pytest.raises(UsageError, match=r"'nope'.*known: tiny"):
        make(spec).ensure("nope")


# -- failures in words ------------------------------------------------------------------------


def refused(manager: EnvironmentManager, wheels: Path | None) -> EnvironmentSetupError:
    with pytest.raises(EnvironmentSetupError) as caught:
        manager.ensure(NAME, wheels=wheels)
    directory = manager.path(NAME).parent
    assert not manager.path(NAME).exists()
    assert leftovers(directory) == []
    return caught.value


def test_a_hash_that_differs(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, wheels: Path
) -> None:
    build_wheel(wheels, NAME, "1.0", {"tiny.py": b"VALUE = 'altered'\n"})
    error = refused(make(spec), wheels)
    assert "sha256 differs" in error.message
    assert "tiny==1.0" in error.message


def test_a_damaged_wheel(make: Callable[..., EnvironmentManager], wheels: Path) -> None:
    wheel = build_wheel(wheels, NAME, "1.0", {"tiny.py": b"VALUE = 1\n"})
    wheel.write_bytes(wheel.read_bytes()[:100])
    error = refused(make(LocalSpec(NAME, f"{NAME}==1.0\n", NAME)), wheels)
    assert "damaged" in error.message


def test_a_package_that_is_not_in_the_folder(
    make: Callable[..., EnvironmentManager], wheels: Path
) -> None:
    wheels.mkdir()
    error = refused(make(LocalSpec(NAME, "absent-package==1.0\n", NAME)), wheels)
    assert "absent-package" in error.message
    assert "--wheels DIR" in error.hint


def test_a_wheel_folder_that_does_not_exist(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, tmp_path: Path
) -> None:
    error = refused(make(spec), tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in error.message


def test_an_index_that_does_not_answer(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, env: dict[str, str]
) -> None:
    env |= {
        "UV_DEFAULT_INDEX": "http://user:very-secret@127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
    }
    error = refused(make(spec), None)
    assert "cannot be reached" in error.message
    assert "very-secret" not in str(error)
    assert "index-url" in error.hint


def test_too_little_disk_is_said_before(
    make: Callable[..., EnvironmentManager], spec: LocalSpec, wheels: Path
) -> None:
    large = LocalSpec(NAME, spec.lock, NAME, disk=2**60)
    error = refused(make(large), wheels)
    assert "TiB are free" in error.message
    assert error.cause == "disk_full"


# -- interrupted, and twice at once -----------------------------------------------------------


@pytest.fixture
def gate() -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """An index that holds its answer until it is let go: (URL, asked, release)."""
    import http.server

    asked, release = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            release.wait(60)
            with contextlib.suppress(BrokenPipeError):  # the asker may be dead by now
                self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="gate")
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple", asked, release
        release.set()
        server.shutdown()
        thread.join()


CHILD = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_wheels import LocalSpec
from yibu.environments.manager import EnvironmentManager
from yibu.environments.uv_settings import UvSettings
from yibu.errors import EnvironmentSetupError
a = json.loads(sys.argv[1])
spec = LocalSpec(a["name"], a["lock"], a["name"])
manager = EnvironmentManager(Path(a["directory"]), UvSettings(), env=a["env"],
                             specs={spec.name: spec})
wheels = Path(a["wheels"]) if a["wheels"] else None
try:
    print(manager.ensure(spec.name, wheels=wheels))
except EnvironmentSetupError as error:
    left = [path.name for path in Path(a["directory"]).iterdir() if path.is_dir()]
    sys.exit(f"{error}\\ncause: {error.cause}; left: {left}")
"""


def child(
    spec: LocalSpec,
    directory: Path,
    env: dict[str, str],
    wheels: Path | None,
    through: Sequence[str] = (),
) -> subprocess.Popen[str]:
    arguments = {
        "name": NAME,
        "lock": spec.lock,
        "directory": str(directory),
        "env": env,
        "wheels": str(wheels) if wheels else None,
    }
    return subprocess.Popen(
        [*through, sys.executable, "-c", CHILD, json.dumps(arguments), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_disk_that_fills_up_meanwhile(wheels: Path, tmp_path: Path, env: dict[str, str]) -> None:
    wheel = build_wheel(wheels, NAME, "1.0", {"tiny.bin": os.urandom(2 * 1024 * 1024)})
    spec = LocalSpec(NAME, locked(wheel, NAME, "1.0"), NAME)
    directory = tmp_path / "small"
    directory.mkdir()
    through = with_disks({directory: "1m"})
    done = child(spec, directory, {**env, "UV_LINK_MODE": "copy"}, wheels, through)
    _, said = done.communicate(timeout=60)
    assert done.returncode == 1
    assert "environment tiny: the disk is full" in said
    assert "YIBU_HOME" in said
    assert said.rstrip().endswith("cause: disk_full; left: []")


def test_killed_midway_leaves_nothing_in_use_and_is_made_again(
    make: Callable[..., EnvironmentManager],
    spec: LocalSpec,
    wheels: Path,
    env: dict[str, str],
    tmp_path: Path,
    gate: tuple[str, threading.Event, threading.Event],
) -> None:
    url, asked, release = gate
    directory = tmp_path / "environments"
    victim = child(spec, directory, {**env, "UV_DEFAULT_INDEX": url}, None)
    assert asked.wait(60), "uv never asked the index"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    manager = make(spec)
    assert leftovers(directory) != []
    assert not manager.path(NAME).exists()
    assert manager.list() == []

    # The killed process's uv still holds the lock: it is waited for, then swept away.
    reports: list[EnvironmentProgress] = []
    waiting = threading.Event()

    def note(report: EnvironmentProgress) -> None:
        reports.append(report)
        if report.phase == "waiting":
            waiting.set()
            release.set()

    python = manager.ensure(NAME, wheels=wheels, progress=note)
    assert waiting.is_set()
    assert run(python, "import tiny; print(tiny.VALUE)") == "1"
    assert leftovers(directory) == []


def test_two_processes_at_once_make_one(
    spec: LocalSpec, wheels: Path, env: dict[str, str], tmp_path: Path
) -> None:
    directory = tmp_path / "environments"
    both = [child(spec, directory, env, wheels) for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    made = [path for path in directory.iterdir() if not path.name.startswith(".")]
    assert len(made) == 1
    assert leftovers(directory) == []


def test_cancelled_while_uv_runs(
    make: Callable[..., EnvironmentManager],
    spec: LocalSpec,
    env: dict[str, str],
    gate: tuple[str, threading.Event, threading.Event],
) -> None:
    url, asked, _ = gate
    env["UV_DEFAULT_INDEX"] = url
    cancel = threading.Event()
    watcher = threading.Thread(target=lambda: (asked.wait(60), cancel.set()))
    watcher.start()
    manager = make(spec)
    with pytest.raises(UvCancelledError, match="cancelled"):
        manager.ensure(NAME, cancel=cancel)
    watcher.join()
    assert leftovers(manager.path(NAME).parent) == []
    until(lambda: not uv_processes(env["UV_CACHE_DIR"]), "uv gone")


def uv_processes(marker: str) -> list[int]:
    """Processes whose environment has this test's cache directory in it, still alive."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                int(entry.name) != os.getpid()
                and marker.encode() in (entry / "environ").read_bytes()
            ):
                found.append(int(entry.name))
    return found


def test_cancelled_while_waiting_for_another(
    make: Callable[..., EnvironmentManager],
    spec: LocalSpec,
    env: dict[str, str],
    tmp_path: Path,
    gate: tuple[str, threading.Event, threading.Event],
) -> None:
    url, asked, release = gate
    first = child(spec, tmp_path / "environments", {**env, "UV_DEFAULT_INDEX": url}, None)
    assert asked.wait(60)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(UvCancelledError, match="waiting"):
        make(spec).ensure(NAME, cancel=cancel)
    release.set()
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "not on the configured index" in errors


# -- what is in the package -------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_locks_are_whole_and_name_no_place(spec: LocalSpec) -> None:
    lines = [line for line in spec.lock.splitlines() if not line.startswith(" ")]
    assert any(line.startswith(f"{spec.package}==") for line in lines)
    assert all("==" in line for line in lines)
    assert "://" not in spec.lock
    hashed = spec.lock.count("--hash=sha256:")
    assert hashed >= len(lines) - 1


@pytest.mark.parametrize("package", ["numpy", "pyyaml", "uvloop", "opencv-python-headless"])
def test_locks_serve_every_platform_and_python(package: str) -> None:
    """Each of these has a wheel for each of them, and pip picks another than uv here and there."""
    entries = [
        (spec.name, entry)
        for spec in SPECS.values()
        for entry in re.split(r"\n(?=\S)", spec.lock)
        if entry.startswith(f"{package}==")
    ]
    assert entries
    assert [name for name, entry in entries if entry.count("--hash=sha256:") < 8] == []


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_every_python_has_the_same_versions(spec: LocalSpec) -> None:
    """A second version for newer Pythons would be a program that no test runs."""
    for_some = re.findall(r"^([\w-]+)==[^;]+; .*python_full_version", spec.lock, re.MULTILINE)
    twice = {name for name in for_some if for_some.count(name) > 1}
    # torch's CPU build, vLLM and LMDeploy ask for other versions of these on Python 3.13.
    assert twice <= {"networkx", "scipy", "numpy"}
    assert spec.engine in ("vllm", "lmdeploy") or "numpy" not in twice


def test_environments_of_an_engine() -> None:
    assert environments_of("vllm") == ("vllm-cpu", "vllm-cuda")
    assert environments_of("llama.cpp")[0] == "llama.cpp"


def test_an_engine_names_the_environment_of_this_machine() -> None:
    assert environment_named("vllm", has_gpu=False) == "vllm-cpu"
    assert environment_named("vllm", has_gpu=True) == "vllm-cuda"
    assert environment_named("vllm-cpu", has_gpu=True) == "vllm-cpu"
    assert environment_named("llama.cpp", has_gpu=True) == "llama.cpp"
    with pytest.raises(UsageError, match="speech-onnx, speech-whisper"):
        environment_named("speech", has_gpu=False)

"""Pin the engine environments anew: locks/NAME.in (and NAME.overrides) → locks/NAME.txt.

    python scripts/lock_environments.py [--upgrade] [NAME …]

To add a package to an environment, add its line to the ``.in`` file and run this. What is pinned
already stays, without ``--upgrade``. The result is for every platform and Python that yibu runs on,
with hashes, and names no index. Each package has one version for all of them wherever there is one:
two versions are two programs, and the tests run one. Torch's CPU build
keeps no hash: it is found in one place or another, and here only for one platform.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

from yibu.environments.specs import SPECS
from yibu.environments.uv import uv_binary
from yibu.environments.uv_settings import UvSettings

LOCKS = Path(__file__).parents[1] / "src/yibu/environments/locks"
LOWEST_PYTHON = "3.11"
HASHES = re.compile(r"(?: \\\n    --hash=sha256:[0-9a-f]{64})+")


def compile_lock(name: str, *, upgrade: bool) -> str:
    """Resolve one environment with uv, from where pip is configured to look."""
    command = [
        str(uv_binary()), "pip", "compile", f"{name}.in",
        "--universal", "--python-version", LOWEST_PYTHON, "--fork-strategy", "fewest",
        "--generate-hashes", "--quiet", "--output-file", f"{name}.txt",
        "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header",
    ]  # fmt: skip
    if upgrade:
        command.append("--upgrade")
    if (LOCKS / f"{name}.overrides").is_file():
        command += ["--overrides", f"{name}.overrides"]
    # An extra index may have one wheel of a package where the index has one for each platform and
    # Python: its hash alone would stand in the lock, which then serves this machine only.
    index = dataclasses.replace(UvSettings.from_pip(os.environ), extra_indexes=())
    cpu_torch = any(spec.cpu_torch for spec in SPECS.values() if spec.file == name)
    if not cpu_torch:
        # A folder that has torch's CPU build would bring it into the CUDA environment's lock.
        index = dataclasses.replace(index, find_links=())
    env = {**os.environ, **index.uv_environment(os.environ)}
    if not cpu_torch:
        env.pop("UV_FIND_LINKS", None)
    subprocess.run(command, cwd=LOCKS, env=env, check=True)
    return (LOCKS / f"{name}.txt").read_text(encoding="utf-8")


def tidy(lock: str) -> str:
    """Leave out what no platform installs, and the hashes of torch's CPU build."""
    kept = []
    for entry in re.split(r"\n(?=\S)", lock.strip()):
        if "sys_platform == 'never'" in entry:
            continue
        cpu_torch = entry.startswith("torch==") and "+cpu" in entry.split(" ", 1)[0]
        kept.append(HASHES.sub("", entry) if cpu_torch else entry)
    return "\n".join(kept) + "\n"


def main() -> None:
    words = sys.argv[1:]
    upgrade = "--upgrade" in words
    names = [word for word in words if word != "--upgrade"] or list(SPECS)
    for name in dict.fromkeys(SPECS[name].file for name in names):
        lock = tidy(compile_lock(name, upgrade=upgrade))
        if "://" in lock:
            sys.exit(f"{name}: the lock names a URL, which would not work behind a mirror")
        (LOCKS / f"{name}.txt").write_text(lock, encoding="utf-8")
        print(f"{name}: {sum('==' in line for line in lock.splitlines())} packages")


if __name__ == "__main__":
    main()

"""Ask an advisory service about every pinned package: ``scripts/audit.py [LOCK …]``.

pip-audit asks, through the configured index, which need not have advisories: then it finds nothing and says that
nothing was found. Here that is told apart: exit 1 for a known vulnerability only, and a plain line where
nobody could be asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from yibu.environments.uv_settings import UvSettings

_CORE = str(Path(__file__).parents[1] / "requirements/core.lock")
_MINUTES = 2
_ASK = "uv tool run --from pip-audit pip-audit --disable-pip --no-deps --format json --progress-spinner off"


def main(locks: Sequence[str]) -> int:
    return max(audited(Path(lock)) for lock in locks or [_CORE])


def audited(lock: Path) -> int:
    env = {**os.environ, **UvSettings.from_pip(os.environ).uv_environment(os.environ)}
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        words = [sys.executable, "-m", *_ASK.split(), "-r", str(lock), "--output", str(report)]
        try:
            done = subprocess.run(
                words, env=env, capture_output=True, text=True, timeout=60 * _MINUTES, check=False
            )
            found = json.loads(report.read_bytes()) if report.exists() else None
            why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        except subprocess.TimeoutExpired:
            found, why = None, [f"no answer within {_MINUTES} minutes"]
    code, lines = judged(lock.name, found, why[0])
    print("\n".join(lines))
    return code


def judged(name: str, report: Mapping[str, Any] | None, why: str) -> tuple[int, list[str]]:
    """The exit code, and what is said; ``report`` is pip-audit's, ``why`` there is none."""
    if report is None:
        return 0, [f"{name}: NOT AUDITED: the advisory service could not be asked: {why}"]
    packages = report["dependencies"]
    skipped = [one for one in packages if "skip_reason" in one]
    if packages and len(skipped) == len(packages):
        why = skipped[0]["skip_reason"]
        none = f"the index has no advisories, for any of {len(packages)} packages"
        return 0, [f"{name}: NOT AUDITED: {none}. Its words: {why}"]
    lines = [
        f"{name}: {one['name']} {one['version']}: {each['id']}, fixed in "
        f"{', '.join(each['fix_versions']) or 'no version yet'}"
        for one in packages
        for each in one.get("vulns", ())
    ]
    asked = len(packages) - len(skipped)
    left = f", {len(skipped)} could not be asked about" if skipped else ""
    return int(bool(lines)), [
        *lines,
        f"{name}: {asked} packages audited{left}, {len(lines)} vulnerabilities",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

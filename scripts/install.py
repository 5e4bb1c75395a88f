"""Install into the virtual environment whose Python runs this, with uv, which pip has brought.

    .venv/bin/python scripts/install.py ARGUMENTS-OF-PIP-INSTALL …

uv takes a quarter of pip's time, and does not read pip's configuration: it is handed over here, as
for the engines' environments. Where uv cannot do it (an index that only pip has a plugin for, say),
pip does. Needs nothing but the standard library.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from yibu.environments.uv_settings import UvSettings


def main(arguments: list[str]) -> int:
    env = {**os.environ, **UvSettings.from_pip(os.environ).uv_environment(os.environ)}
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    if subprocess.run([*uv, *arguments], env=env, check=False).returncode == 0:
        return 0
    print("uv could not install it; pip tries", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return subprocess.run([*pip, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

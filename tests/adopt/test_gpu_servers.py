"""Scripts, Compose files and manifests that start SGLang or LMDeploy."""

from __future__ import annotations

from typing import Any

import pytest

from yibu.adopt import adopt_script

RUN = "docker run --gpus all -v /data:/models -p 8000"
COMPOSE = """
services:
  chat:
    image: lmsysorg/sglang:latest
    command: python3 -m sglang.launch_server --model-path /models/Qwen3-8B --host 0.0.0.0 --tp 2
    volumes: ["/data:/models"]
    ports: ["8100:30000"]
  small:
    image: openmmlab/lmdeploy:latest
    command: lmdeploy serve api_server /models/internlm --server-port 23333 --api-keys sk-compose-secret1
    volumes: ["/data:/models"]
    ports: ["8101:23333"]
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: chat}
spec:
  template:
    spec:
      containers:
        - name: sglang
          image: lmsysorg/sglang:v0.5.23
          command: ["python3", "-m", "sglang.launch_server"]
          args: ["--model-path", "Qwen/Qwen3-8B", "--served-model-name", "qwen3", "--port", "8000"]
          resources: {limits: {nvidia.com/gpu: 1}}
"""


SCRIPTS = [
    ("python -m sglang.launch_server --model-path /m/Qwen3 --port 30001 --tp 2 --context-length 4096",
     "sglang", "/m/Qwen3", 30001, {"tensor_parallel": 2, "context": 4096}),
    ("sglang serve /m/Qwen3 --mem-fraction-static 0.8", "sglang", "/m/Qwen3", 30000,
     {"mem_fraction_static": 0.8}),
    ("CUDA_VISIBLE_DEVICES=1 lmdeploy serve api_server /m/Qwen3 --server-port 23334 --tp 1",
     "lmdeploy", "/m/Qwen3", 23334, {"tensor_parallel": 1}),
    ("lmdeploy serve api_server --enable-prefix-caching /m/Qwen3 --cache-max-entry-count 0.5",
     "lmdeploy", "/m/Qwen3", 23333, {"enable_prefix_caching": True, "cache_max_entry_count": 0.5}),
    (f"{RUN}:30000 lmsysorg/sglang:latest python3 -m sglang.launch_server --model-path /models/Qwen3",
     "sglang", "/data/Qwen3", 8000, {}),
    (f"{RUN}:23333 openmmlab/lmdeploy:latest lmdeploy serve api_server /models/Qwen3", "lmdeploy",
     "/data/Qwen3", 8000, {}),
    (f"{RUN}:9000 openmmlab/lmdeploy lmdeploy serve api_server /models/Qwen3 --server-port 9000",
     "lmdeploy", "/data/Qwen3", 8000, {}),
]  # fmt: skip


@pytest.mark.parametrize(("script", "engine", "source", "port", "options"), SCRIPTS)
def test_adopt_reads_their_scripts(
    script: str, engine: str, source: str, port: int, options: dict[str, Any]
) -> None:
    document = adopt_script(script).document
    (entry,) = document["models"]
    assert (entry["engine"], entry["source"], document["gateway"]["port"]) == (engine, source, port)
    assert entry.get("options", {}) == options


def test_adopt_reads_compose_and_kubernetes() -> None:
    adoption = adopt_script(COMPOSE)
    assert [entry["engine"] for entry in adoption.document["models"]] == ["sglang", "lmdeploy"]
    assert [entry["source"] for entry in adoption.document["models"]] == [
        "/data/Qwen3-8B", "/data/internlm",
    ]  # fmt: skip
    assert "sk-compose-secret1" not in str(adoption.document)
    (entry,) = adopt_script(DEPLOYMENT).document["models"]
    assert (entry["engine"], entry["name"]) == ("sglang", "qwen3")

"""Compose files, Kubernetes manifests, Helm values and containers."""

from __future__ import annotations

import pytest

from yibu.adopt import Setting, adopt_script
from yibu.errors import UsageError

MODULE = "vllm.entrypoints.openai.api_server"
COMPOSE = """
x-common: &common
  image: vllm/vllm-openai:${VLLM_TAG:-v0.11.0}
  volumes: ["/data/models:/models:ro", "hf-cache:/root/.cache/huggingface"]
  ipc: host
services:
  chat:
    <<: *common
    command: >
      --model /models/Qwen3-32B --served-model-name qwen3
      --tensor-parallel-size 2 --max-model-len 32768
    ports: ["127.0.0.1:8001:8000"]
    environment:
      - HF_HUB_OFFLINE=1
      - VLLM_API_KEY=sk-compose-secret
    deploy:
      resources:
        reservations:
          devices: [{driver: nvidia, device_ids: ["0", "1"], capabilities: [gpu]}]
  small:
    image: ghcr.io/ggml-org/llama.cpp:server
    command: ["-m", "/models/small.gguf", "-c", "8192", "--port", "9000"]
    volumes: [{type: bind, source: ./gguf, target: /models}]
    ports: [{target: 9000, published: 9000}]
  web:
    image: nginx
    ports: ["80:80"]
volumes: {hf-cache: {}}
"""


def test_a_compose_file() -> None:
    adoption = adopt_script(COMPOSE)
    chat, small = adoption.document["models"]
    assert chat == {
        "name": "qwen3",
        "source": "/data/models/Qwen3-32B",
        "engine": "vllm",
        "gpus": [0, 1],
        "options": {"tensor_parallel": 2, "context": 32768},
        "env": {"HF_HUB_OFFLINE": "1"},
    }
    assert (small["name"], small["source"], small["engine"]) == (
        "small", "./gguf/small.gguf", "llama.cpp",
    )  # fmt: skip
    assert adoption.document["gateway"] == {"host": "127.0.0.1", "port": 8001}
    assert adoption.keys == ("sk-compose-secret",)
    assert "sk-compose-secret" not in adoption.to_yaml() + str(adoption.warnings)


def test_what_compose_would_leave_empty_is_refused() -> None:
    text = "services:\n  a:\n    image: vllm/vllm-openai\n    command: --model ${MODEL}\n"
    with pytest.raises(UsageError, match=r"line 4: \$\{MODEL\} in service a is not set"):
        adopt_script(text)
    (model,) = adopt_script(text, Setting(given={"MODEL": "/m/x"})).document["models"]
    assert model["source"] == "/m/x"


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: qwen}
spec:
  replicas: 2
  selector: {matchLabels: {app: qwen}}
  template:
    metadata: {labels: {app: qwen}}
    spec:
      containers:
        - name: server
          image: vllm/vllm-openai:latest
          command: ["/bin/sh", "-c"]
          args: ["vllm serve /models/Qwen3-8B --max-model-len $LENGTH --port 8000"]
          env:
            - {name: LENGTH, value: "4096"}
            - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hf, key: token}}}
          ports: [{name: http, containerPort: 8000}]
          resources: {limits: {nvidia.com/gpu: 1}}
          volumeMounts: [{name: m, mountPath: /models}, {name: shm, mountPath: /dev/shm}]
        - name: sidecar
          image: prom/exporter
      volumes:
        - {name: m, hostPath: {path: /data/models}}
        - {name: shm, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: Service
metadata: {name: qwen}
spec: {selector: {app: qwen}, ports: [{port: 80, targetPort: http}]}
"""


def test_a_deployment_and_its_service() -> None:
    adoption = adopt_script(DEPLOYMENT)
    (model,) = adoption.document["models"]
    assert (model["name"], model["source"]) == ("Qwen3-8B", "/data/models/Qwen3-8B")
    assert model["replicas"] == 2
    assert model["options"] == {"context": 4096}
    assert model["env"] == {"LENGTH": "4096", "HF_TOKEN": "${env.HF_TOKEN}"}
    assert adoption.document["gateway"]["port"] == 80
    assert any("HF_TOKEN comes from a secret" in warning for warning in adoption.warnings)


def test_a_model_on_a_claim_is_told_of() -> None:
    text = DEPLOYMENT.replace("hostPath: {path: /data/models}",
                              "persistentVolumeClaim: {claimName: c}")  # fmt: skip
    adoption = adopt_script(text)
    assert any("/models is on a volume of the cluster's" in w for w in adoption.warnings)


def test_helm_values() -> None:
    adoption = adopt_script("""
servingEngineSpec:
  modelSpec:
    - name: llama3
      repository: vllm/vllm-openai
      tag: latest
      modelURL: meta-llama/Llama-3.1-8B-Instruct
      replicaCount: 1
      requestGPU: 1
      vllmConfig: {enablePrefixCaching: true, maxModelLen: 16384, dtype: bfloat16,
                   extraArgs: ["--disable-log-requests"]}
""")
    (model,) = adoption.document["models"]
    assert model["name"] == "llama3"
    assert model["source"] == "hf:meta-llama/Llama-3.1-8B-Instruct"
    assert model["options"] == {
        "enable_prefix_caching": True, "context": 16384, "dtype": "bfloat16",
        "disable_log_requests": True,
    }  # fmt: skip
    chart = """
image: {repository: vllm/vllm-openai, tag: v0.11.0}
args: [--model, /m/x, --port, "8000"]
replicaCount: 1
"""
    (model,) = adopt_script(chart).document["models"]
    assert model["source"] == "/m/x"
    with pytest.raises(UsageError, match=r"line 3: .*filled in by Helm"):
        adopt_script("kind: Deployment\nspec:\n  replicas: {{ .Values.n }}\n")


def test_a_container_that_is_filled_later() -> None:
    adoption = adopt_script("""
docker run -itd --name serving --gpus all -p 8088:8000 -v /data:/data vllm/vllm-openai bash
docker exec -d serving bash -c "cd /data && vllm serve ./Qwen3-8B --port 8000"
""")
    (model,) = adoption.document["models"]
    assert model["source"] == "/data/Qwen3-8B"
    assert adoption.document["gateway"]["port"] == 8088
    with pytest.raises(UsageError, match="container other, which was made elsewhere"):
        adopt_script('docker exec other bash -c "vllm serve /m"')


@pytest.mark.parametrize(
    ("command", "source", "port"),
    [
        ("docker run -p8000:8000 -v/m:/m vllm/vllm-openai:x --model=/m/a", "/m/a", 8000),
        ("podman run --rm --net=host vllm/vllm-openai serve /m/a --port 9", "/m/a", 9),
        ("docker run --entrypoint vllm -p 1:2 my/image serve /m/a --port 2", "/m/a", 1),
        (f"docker run -p 81:8000 vllm/vllm-openai python3 -m {MODULE} --model /m/a", "/m/a", 81),
        ("docker run -p 82:8080 -v /g:/models ghcr.io/ggml-org/llama.cpp:server-cuda -m /models/a.gguf",
         "/g/a.gguf", 82),
        ("docker run -p 83:8080 ghcr.io/ggml-org/llama.cpp:full --server -m /models/a.gguf",
         "/models/a.gguf", 83),
    ],
)  # fmt: skip
def test_images_and_their_entrypoints(command: str, source: str, port: int) -> None:
    adoption = adopt_script(command)
    assert adoption.document["models"][0]["source"] == source
    assert adoption.document["gateway"]["port"] == port


def test_an_image_that_is_not_known_is_not_guessed_at() -> None:
    with pytest.raises(UsageError, match="may start a server"):
        adopt_script("docker run -p 8000:8000 registry/own:1 --model /m --served-model-name x")

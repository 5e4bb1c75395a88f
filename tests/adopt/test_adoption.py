"""Start scripts as people write them, read into yibu.yaml without being run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from yibu.adopt import StartedServer, adopt_process, adopt_script, find_servers
from yibu.adopt.bash import Setting, read_commands
from yibu.adopt.servers import judge
from yibu.engines.vllm.server import SERVER
from yibu.errors import UsageError

TUTORIAL = r"""#!/bin/bash
# DeepSeek on two cards
source /root/venv/bin/activate
mkdir -p logs
nohup sh -c 'CUDA_VISIBLE_DEVICES=0,1 python -m vllm.entrypoints.openai.api_server \
  --api-key sk-tutorial-1 \
  --model /data/models/deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B \
  --served-model-name deepseek-r1 \
  --tensor-parallel-size 2 \
  --gpu-memory-utilization 0.85 \
  --max-num-seqs 64 \
  --max-model-len 8192 \
  --dtype bfloat16 \
  --host 0.0.0.0 --port 8102 \
  --disable-log-requests --disable-log-stats \
  --trust-remote-code' > logs/deepseek.log 2>&1 &
tail -f logs/deepseek.log
"""


def test_the_tutorials_script() -> None:
    adoption = adopt_script(TUTORIAL)
    assert adoption.document == {
        "gateway": {"host": "0.0.0.0", "port": 8102},
        "models": [
            {
                "name": "deepseek-r1",
                "source": "/data/models/deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
                "engine": "vllm",
                "gpus": [0, 1],
                "options": {
                    "tensor_parallel": 2,
                    "gpu_memory_utilization": 0.85,
                    "parallel": 64,
                    "context": 8192,
                    "dtype": "bfloat16",
                    "disable_log_requests": True,
                    "disable_log_stats": True,
                    "trust_remote_code": True,
                },
            }
        ],
    }
    assert adoption.keys == ("sk-tutorial-1",)
    said = "\n".join(adoption.warnings)
    for words in ("API key stood on the command line", "trust-remote-code", "after a crash", "log"):
        assert words in said


def test_the_key_is_nowhere_in_what_is_printed() -> None:
    adoption = adopt_script(TUTORIAL)
    assert "sk-tutorial-1" not in adoption.to_yaml() + repr(adoption) + str(adoption.warnings)
    assert yaml.safe_load(adoption.to_yaml()) == adoption.document


def test_vllm_serve_with_variables() -> None:
    adoption = adopt_script(
        """
        MODEL=Qwen/Qwen2.5-7B-Instruct
        export VLLM_USE_MODELSCOPE=True NCCL_DEBUG=INFO
        PORT=${PORT:-8010}
        COMMON="--max-model-len 4096 --enable-prefix-caching"
        vllm serve "$MODEL" --port $PORT $COMMON --served-model-name qwen qwen-chat
        """
    )
    (model,) = adoption.document["models"]
    assert model == {
        "name": "qwen",
        "aliases": ["qwen-chat"],
        "source": "modelscope:Qwen/Qwen2.5-7B-Instruct",
        "engine": "vllm",
        "options": {"context": 4096, "enable_prefix_caching": True},
        "env": {"NCCL_DEBUG": "INFO"},
    }
    # Without a key it was open to the network: that is not carried over.
    assert adoption.document["gateway"] == {"host": "127.0.0.1", "port": 8010}
    assert any("anyone on the network" in warning for warning in adoption.warnings)


def test_clients_need_no_new_name() -> None:
    """Without --served-model-name vLLM answers to the model as it was typed."""
    for source, name in (("/data/models/Qwen3-8B", "Qwen3-8B"), ("Qwen/Qwen3-8B", "Qwen3-8B")):
        (model,) = adopt_script(f"vllm serve {source} --host 127.0.0.1").document["models"]
        assert (model["name"], model["aliases"]) == (name, [source])
    (model,) = adopt_script("vllm serve a/b --served-model-name /x y").document["models"]
    assert (model["name"], model["aliases"]) == ("x", ["/x", "y"])


def test_the_same_flags_in_another_order_are_the_same_server() -> None:
    def server(line: str) -> StartedServer:
        (found,) = find_servers(read_commands(line, Setting(), judge)[0])
        return found

    one = server("vllm serve m --port 8001 --dtype=bfloat16 --served-model-name a b")
    as_yibu = "/v/python -m vllm.entrypoints.cli.main serve m --port 8001 --dtype=bfloat16"
    assert one.same_as(server(f"{as_yibu} --served-model-name a b"))
    same = "/v/python3 -u /v/bin/vllm serve m --served-model-name a b --port=8001 --dtype bfloat16"
    assert one.same_as(server(same))
    for other in ("--port 8002", "--port 8001 --dtype bfloat16 --served-model-name a"):
        assert not one.same_as(server(f"vllm serve m {other}"))
    assert not server("llama-server -m m").same_as(server("vllm serve -m m"))


def test_several_servers_share_one_door() -> None:
    adoption = adopt_script(
        """
        cd /srv
        CUDA_VISIBLE_DEVICES=0 vllm serve ./models/a --port 8001 --host 127.0.0.1 &
        CUDA_VISIBLE_DEVICES=1 vllm serve ./models/b --port 8002 --host 127.0.0.1 &
        wait
        """
    )
    models = adoption.document["models"]
    assert [(m["name"], m["source"], m["gpus"]) for m in models] == [
        ("a", "/srv/models/a", [0]),
        ("b", "/srv/models/b", [1]),
    ]
    assert adoption.document["gateway"]["port"] == 8001
    assert any("b was at port 8002" in warning for warning in adoption.warnings)


def test_llama_server() -> None:
    adoption = adopt_script("llama-server -m models/q.gguf -c 4096 -np 4 --port 8081 -t 8")
    assert adoption.document["models"] == [
        {
            "name": "q",
            "source": "./models/q.gguf",
            "engine": "llama.cpp",
            "options": {"context": 1024, "parallel": 4, "threads": 8},
        }
    ]
    assert adoption.document["gateway"] == {"host": "127.0.0.1", "port": 8081}


def test_json_lists_and_uuids() -> None:
    adoption = adopt_script(
        "CUDA_VISIBLE_DEVICES=GPU-1a2b vllm serve org/m --host 127.0.0.1 "
        "--rope-scaling '{\"factor\": 4.0}' --enable-lora --lora-modules a=/x "
        '\'{"name": "b", "path": "/y"}\' --no-enable-log-requests '
        "--seed -1"
    )
    (model,) = adoption.document["models"]
    assert model["options"] == {
        "rope_scaling": {"factor": 4.0},
        "lora": {"a": "/x", "b": "/y"},
        "enable_log_requests": False,
        "seed": -1,
    }
    assert model["env"] == {"CUDA_VISIBLE_DEVICES": "GPU-1a2b"}
    assert "gpus" not in model


def test_secrets_in_the_environment_are_not_copied() -> None:
    adoption = adopt_script("export HF_TOKEN=hf_abc\nvllm serve org/m --host 127.0.0.1")
    assert adoption.document["models"][0]["env"] == {"HF_TOKEN": "${env.HF_TOKEN}"}
    assert "hf_abc" not in adoption.to_yaml() + str(adoption.warnings)


def test_a_running_process() -> None:
    adoption = adopt_process(
        ["/venv/bin/python3.11", "/venv/bin/vllm", "serve", "m", "--port", "9000"],
        {
            "VLLM_API_KEY": "sk-environment",
            "PATH": "/bin",
            "LANG": "C",
            "CUDA_VISIBLE_DEVICES": "3",
        },
        "/srv",
    )
    assert adoption.keys == ("sk-environment",)
    assert adoption.document["models"] == [
        {"name": "m", "source": "/srv/m", "engine": "vllm", "gpus": [3]}
    ]
    assert adoption.document["gateway"] == {"host": "0.0.0.0", "port": 9000}


UNIT = r"""[Unit]
Description=vLLM for the chat
After=network.target

[Service]
User=vllm
ExecStart=-/opt/vllm/venv/bin/vllm serve ./models/Qwen2.5-7B-Instruct \
    --served-model-name qwen --port ${PORT} --max-model-len 4096
WorkingDirectory=/opt/vllm
Environment="CUDA_VISIBLE_DEVICES=0,1" VLLM_API_KEY=sk-of-the-unit
Environment=PORT=8200 HF_HOME=/data/hf
EnvironmentFile=-/etc/default/vllm
Restart=always

[Install]
WantedBy=multi-user.target
"""


def test_a_systemd_unit() -> None:
    adoption = adopt_script(UNIT)
    (model,) = adoption.document["models"]
    assert model == {
        "name": "qwen",
        "source": "/opt/vllm/models/Qwen2.5-7B-Instruct",
        "engine": "vllm",
        "gpus": [0, 1],
        "options": {"context": 4096},
        "env": {"PORT": "8200", "HF_HOME": "/data/hf"},
    }
    assert adoption.document["gateway"]["port"] == 8200
    assert adoption.keys == ("sk-of-the-unit",)
    said = "\n".join(adoption.warnings)
    assert "sk-of-the-unit" not in adoption.to_yaml() + said
    for words in ("/etc/default/vllm", "as vllm", "systemctl disable --now"):
        assert words in said


def test_what_yibu_refuses_is_left_out_with_its_reason() -> None:
    adoption = adopt_script(
        "vllm serve /m/x --ssl-keyfile k.pem --ssl-certfile c.pem --config c.yaml --uds /x.sock"
        " --hf-token hf_secret123 --allowed-origins '[\"*\"]' -O3 --seed 7"
    )
    (model,) = adoption.document["models"]
    assert model["options"] == {"optimization_level": 3, "seed": 7}
    said = "\n".join(adoption.warnings)
    assert "hf_secret123" not in adoption.to_yaml() + said
    for words in ("HF_TOKEN", "--config is left out", "cors_origins", "plain HTTP"):
        assert words in said
    # Whatever the engine would refuse is told here, not by the yibu up that follows.
    assert not SERVER.refused.keys() & set(model["options"])


def test_nothing_to_adopt() -> None:
    with pytest.raises(UsageError, match=r"found: nginx, tail"):
        adopt_script("nginx; tail -f x")
    with pytest.raises(UsageError, match="no command"):
        adopt_script("# nothing\n")


def test_nothing_of_a_script_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    adopt_script(f"X=$(touch {mark}); `touch {mark}`; touch {mark}; vllm serve a/b --seed 1")
    assert not mark.exists()


@given(st.text(alphabet="ab$'\"\\ \n;&|<>(){}#=-01", max_size=60))
def test_any_text_is_read_to_its_end(text: str) -> None:
    try:
        commands, _ = read_commands(text, Setting(), judge)
    except UsageError:
        return
    for command in commands:
        assert command.argv

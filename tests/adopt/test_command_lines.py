"""The engines' command lines: what adopt takes from each flag and variable, and what it refuses."""

from __future__ import annotations

import pytest

from yibu.adopt import Setting, adopt_script
from yibu.errors import UsageError


@pytest.mark.parametrize(
    ("variable", "gpus"),
    [
        ("CUDA_VISIBLE_DEVICES=-1", []),
        ("CUDA_VISIBLE_DEVICES=", []),
        ("ASCEND_RT_VISIBLE_DEVICES=0,1", [0, 1]),
        ("HIP_VISIBLE_DEVICES=2", [2]),
        ("ROCR_VISIBLE_DEVICES=3", [3]),
    ],
)
def test_the_variables_that_show_gpus(variable: str, gpus: list[int]) -> None:
    (model,) = adopt_script(f"{variable} vllm serve org/m --host 127.0.0.1").document["models"]
    assert model["gpus"] == gpus
    assert "env" not in model


def test_llama_servers_hub_and_variables() -> None:
    (model,) = adopt_script("llama-server -hf org/x-GGUF:Q8_0 -ngl all -fa -np 2").document[
        "models"
    ]
    assert model["source"] == "hf:org/x-GGUF:Q8_0"
    assert model["options"] == {"parallel": 2, "gpu_layers": "all", "flash_attention": True}
    (model,) = adopt_script("llama-server --hf-repo a/b --hf-file c.gguf").document["models"]
    assert model["source"] == "hf:a/b#c.gguf"
    adoption = adopt_script(
        "export LLAMA_API_KEY=sk-in-the-environment LLAMA_ARG_MODEL=/m/x.gguf LLAMA_ARG_PORT=9001\n"
        "llama-server -a one,two"
    )
    (model,) = adoption.document["models"]
    assert (model["name"], model["aliases"], model["source"]) == ("one", ["two"], "/m/x.gguf")
    assert adoption.keys == ("sk-in-the-environment",)
    assert adoption.document["gateway"]["port"] == 9001


def test_a_model_behind_the_flags() -> None:
    (model,) = adopt_script("vllm serve --port 8000 --enforce-eager org/m").document["models"]
    assert (model["source"], model["options"]) == ("hf:org/m", {"enforce_eager": True})


def test_two_servers_of_one_model_get_two_names() -> None:
    adoption = adopt_script(
        "CUDA_VISIBLE_DEVICES=0 vllm serve org/m --port 8001 &\n"
        "CUDA_VISIBLE_DEVICES=1 vllm serve org/m --port 8002 &\nwait"
    )
    first, second = adoption.document["models"]
    assert (first["name"], first["aliases"]) == ("m", ["org/m"])
    assert (second["name"], second.get("aliases")) == ("m-2", None)
    assert any("'m-2'" in warning for warning in adoption.warnings)


def test_paths_begin_where_the_script_went() -> None:
    (model,) = adopt_script(
        "cd /srv && vllm serve ./m --chat-template ./t.jinja --tokenizer org/x --host 127.0.0.1"
    ).document["models"]
    assert model["options"] == {"chat_template": "/srv/t.jinja", "tokenizer": "org/x"}
    (model,) = adopt_script("cd /srv; llama-server -m m.gguf -md d.gguf").document["models"]
    assert model["options"] == {"spec_draft_model": "/srv/d.gguf"}


def test_a_llama_server_of_the_users_own_keeps_what_ours_cannot_do() -> None:
    script = "cd /srv; llama.cpp/build/bin/llama-server -m m.gguf --lora a.gguf"
    (model,) = adopt_script(script).document["models"]
    assert model["options"] == {
        "program": "/srv/llama.cpp/build/bin/llama-server",
        "lora": "/srv/a.gguf",
    }


def test_credentials_are_not_copied() -> None:
    adoption = adopt_script(
        "export HTTP_PROXY=http://me:pw12345@proxy:3128 AUTH_HEADER='Bearer abcdefgh'"
        " TIKTOKEN_ENCODINGS_BASE=/encodings NO_PROXY=localhost\nvllm serve org/m --host 127.0.0.1"
    )
    assert adoption.document["models"][0]["env"] == {
        "HTTP_PROXY": "${env.HTTP_PROXY}",
        "AUTH_HEADER": "${env.AUTH_HEADER}",
        "TIKTOKEN_ENCODINGS_BASE": "/encodings",
        "NO_PROXY": "localhost",
    }
    assert "pw12345" not in adoption.to_yaml() + str(adoption.warnings)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("true\nvllm serve org/m --api-key abc", "line 2: .* 3 characters"),
        ("vllm serve org/m --api-key ''", "0 characters"),
        ("LLAMA_API_KEY=short llama-server -m /m.gguf", "5 characters"),
        ("true\nvllm serve org/m --fancy 3", "line 2: .* no flag --fancy"),
        ("vllm serve org/m --dtype halfx", "cannot be 'halfx'"),
        ("vllm serve org/m --max-model-len 8k5", "no whole number"),
        ("vllm serve org/m --gpu-memory-utilization 1.5", "above 0 and up to 1"),
        ("vllm serve s3://bucket/m", "names a model that yibu cannot fetch"),
        ("vllm serve a b", "takes one value"),
        ("llama-server -m /m.gguf stray", "takes one value"),
        ("llama-server -m /m.gguf --lora /a.gguf", "--lora is nothing"),
        ("llama-server -m /m.gguf --draft-max 8", "--draft-max was removed"),
        ("llama-server -mu https://x/y.gguf", "download a model itself"),
        ("llama-server --gpt-oss-20b-default", "download a model itself"),
        ("llama-server -m /m.gguf --list-devices", "nothing to adopt"),
        ("[Service]\nExecStart=/usr/bin/vllm serve /m/%i\n", "line 2: %i is filled in by systemd"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_line(script: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        adopt_script(script)


def test_systemds_home() -> None:
    unit = "[Service]\nExecStart=%h/venv/bin/vllm serve %h/models/x --host 127.0.0.1\n"
    (model,) = adopt_script(unit).document["models"]
    assert model["source"] == "/root/models/x"
    own = unit + "[Install]\nWantedBy=default.target\n"
    (model,) = adopt_script(own, Setting({"HOME": "/home/me"})).document["models"]
    assert model["source"] == "/home/me/models/x"

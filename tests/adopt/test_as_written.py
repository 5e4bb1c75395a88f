"""Kinds of scripts and manifests that people write, each of which was once misread."""

from __future__ import annotations

from typing import Any

import pytest

from yibu.adopt import Setting, adopt_script
from yibu.errors import UsageError

HOME = Setting({"HOME": "/home/ops", "PWD": "/home/ops/llm"})


def models(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = adopt_script(text, HOME).document["models"]
    return found


def test_a_python_program_in_a_word_is_no_server() -> None:
    (model,) = models("python3 -c \"\nimport torch\nprint('cards')\n\"\nvllm serve org/m\n")
    assert model["engine"] == "vllm"


@pytest.mark.parametrize(
    "question",
    [
        "./llama-server --version",
        "llama-server --list-devices",
        "/opt/b/llama-server -h",
        "vllm serve --help",
        "python -m sglang.launch_server --help",
        "lmdeploy serve api_server --help",
    ],
)
def test_what_only_prints_starts_nothing(question: str) -> None:
    (model,) = models(f"{question}\nvllm serve org/m\n")
    assert model["source"] == "hf:org/m"
    with pytest.raises(UsageError, match="nothing to adopt"):
        adopt_script(question)


@pytest.mark.parametrize(
    ("command", "engine"),
    [
        ("llama-server --models-preset /etc/models.ini --models-max 3", "llama.cpp"),
        ("/opt/b/llama-server --models-dir /m", "llama.cpp"),
        ("vllm serve --port 8000", "vllm"),
    ],
)
def test_a_server_without_a_model_is_refused(command: str, engine: str) -> None:
    with pytest.raises(UsageError, match=r"line 2: .*names no model"):
        adopt_script(f"true {engine}\n{command}")


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve --task transcription org/m --port 8002",
        "vllm serve --disable-log-requests org/m --port 8002",
        "vllm serve --swap-space 8 --enable-reasoning org/m --port 8002",
    ],
)
def test_a_model_behind_a_flag_of_an_older_vllm(command: str) -> None:
    assert models(command)[0]["source"] == "hf:org/m"


@pytest.mark.parametrize(
    ("command", "construct"),
    [
        ("vllm serve ... --port 8000", r"\.\.\."),
        ("vllm serve org/m --tool-call-parser=…", "…"),
        ("python -m sglang.launch_server --model-path [model_path]", r"\[model_path\]"),
        ("llama-server -m {model_file}", "{model_file}"),
        ('vllm serve "<your model>"', "<your model>"),
    ],
)
def test_a_placeholder_is_refused_by_its_name(command: str, construct: str) -> None:
    with pytest.raises(UsageError, match=f"line 2: .*{construct}.* placeholder"):
        adopt_script(f"true\n{command}")


@pytest.mark.parametrize(
    ("before", "after", "use"),
    [
        ('C="vllm serve org/m"', 'C="$C --seed 1"', "exec $C"),
        ('C="vllm serve org/m"', 'C="$C --seed 1"', 'eval "$C"'),
        ("C=(vllm serve org/m)", "C+=(--seed 1)", '"${C[@]}"'),
    ],
)
def test_a_command_that_depends_on_the_machine_is_refused(
    before: str, after: str, use: str
) -> None:
    with pytest.raises(UsageError, match=r"line [23]: "):
        adopt_script(f'{before}\nif [ "$(nvidia-smi -L)" ]; then {after}; fi\n{use}\n')


def test_the_directory_follows_cd() -> None:
    for where in ("$PWD", "$(pwd)", "$(cd .. && pwd)/run", "$(cd .. && echo $PWD)/run"):
        (model,) = models(f"cd /srv/run\nvllm serve {where}/m")
        assert model["source"] == "/srv/run/m"
    (model,) = models("vllm serve $(pwd)/m")
    assert model["source"] == "/home/ops/llm/m"
    (model,) = models("cd sub\ndocker run -v $(pwd):/work vllm/vllm-openai --model /work/m")
    assert model["source"] == "/home/ops/llm/sub/m"


@pytest.mark.parametrize("end", ["\\", "\\\n", "\\\n\n", "\\\n  \n"])
def test_a_last_backslash_continues_nothing(end: str) -> None:
    (model,) = models(f"vllm serve org/m \\\n  --seed 3 {end}")
    assert model["options"] == {"seed": 3}


def test_a_space_behind_a_backslash_is_named() -> None:
    with pytest.raises(UsageError, match=r"line 2: vllm serve org/m \\ has a space behind"):
        adopt_script("true\nvllm serve org/m \\ \n  --port 9000\n")


@pytest.mark.parametrize(
    "program", ["llama-server-cuda -m /m.gguf", "my_vllm serve org/m --seed 1"]
)
def test_a_program_named_after_a_server_is_named(program: str) -> None:
    with pytest.raises(UsageError, match=f"line 2: {program}.* may start a server"):
        adopt_script(f"true\n{program}")


def test_an_address_that_others_reach_needs_a_key() -> None:
    adoption = adopt_script("vllm serve org/m --host 192.168.0.7 --port 9000")
    assert adoption.document["gateway"] == {"host": "127.0.0.1", "port": 9000}
    assert any("192.168.0.7 without a key" in warning for warning in adoption.warnings)


def test_a_containers_paths_in_its_environment() -> None:
    (model,) = models(
        "docker run -e HF_HOME=/cache/hf -e HF_TOKEN -e PROXY_URL=http://p/cache -v ~/hf:/cache/hf"
        " vllm/vllm-openai --model org/m"
    )
    assert model["env"] == {"HF_HOME": "/home/ops/hf", "PROXY_URL": "http://p/cache"}
    (model,) = models("""
services:
  chat:
    image: vllm/vllm-openai
    command: --model /m/x
    environment: {HF_HOME: /cache}
    volumes: ["~/hf:/cache", "./m:/m"]
""")
    assert (model["env"], model["source"]) == ({"HF_HOME": "/home/ops/hf"}, "./m/x")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-v weights:/m", "line 2: /m/x lies on a volume"),
        ("-v /m:/m --env-file serve.env", "line 2: --env-file serve.env is not read"),
    ],
)
def test_what_only_the_container_would_see(options: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        adopt_script(f"true\ndocker run {options} vllm/vllm-openai --model /m/x")


def test_errors_in_a_container_have_the_line_outside() -> None:
    with pytest.raises(UsageError, match=r"line 3: .*no flag --fancy"):
        adopt_script("true\n\ndocker run vllm/vllm-openai --model org/m --fancy 3")
    with pytest.raises(UsageError, match=r"line 2: .*may start a server"):
        adopt_script("true\ndocker run vllm/vllm-openai bash /x/serve.sh vllm serve org/m")
    with pytest.raises(UsageError, match=r"line 5: .*no flag --fancy"):
        adopt_script(
            "services:\n  web:\n    image: nginx\n\n  chat:\n    image: vllm/vllm-openai\n"
            "    command: --model org/m --fancy 3\n"
        )


def test_yaml_that_is_no_manifest_is_never_read_as_bash() -> None:
    with pytest.raises(UsageError, match=r"line 1: .*no Compose file, no Kubernetes manifest"):
        adopt_script("models:\n  chat:\n    run: llama-server -m /m.gguf --port ${PORT}\n")
    (model,) = models(
        "kind: Pod\nspec:\n  containers:\n  - {image: vllm/vllm-openai, args: [--model, org/m]}\n"
        "---\nkind: Service\nmetadata: {name: vllm serve}\n"
    )
    assert model["source"] == "hf:org/m"
    with pytest.raises(UsageError, match="line 2: kind: Fleet is not read, and starts a server"):
        adopt_script(
            "apiVersion: v1\nkind: Fleet\nspec:\n  containers:\n"
            "  - {image: vllm/vllm-openai, command: [vllm, serve, org/m]}\n"
        )


def test_a_variable_of_a_secrets_name_is_shown_how_to_be_set() -> None:
    with pytest.raises(UsageError) as caught:
        adopt_script("docker run -e HF_TOKEN=$HF_TOKEN vllm/vllm-openai --model org/m")
    assert caught.value.hint is not None
    assert "--set HF_TOKEN=…" in caught.value.hint


def test_the_production_stack_as_its_chart_has_it() -> None:
    adoption = adopt_script("""
servingEngineSpec:
  vllmApiKey: sk-of-the-stack
  env: [{name: OTEL_SERVICE_NAME, value: chat}]
  modelSpec:
    - name: chat
      repository: vllm/vllm-openai
      modelURL: org/m
      replicaCount: 2
      enableTool: true
      toolCallParser: hermes
      enableLoRA: true
      modelRevision: v2
      hf_token: hf-of-the-stack
      vllmConfig: {enableChunkedPrefill: false, maxModelLen: 4096, v0: 1, typo: 3}
""")
    assert adoption.document["models"] == [
        {
            "name": "chat",
            "aliases": ["org/m"],
            "source": "hf:org/m",
            "engine": "vllm",
            "replicas": 2,
            "options": {
                "enable_lora": True,
                "enable_auto_tool_choice": True,
                "tool_call_parser": "hermes",
                "enable_chunked_prefill": False,
                "enable_prefix_caching": False,
                "context": 4096,
                "revision": "v2",
            },
            "env": {
                "HF_TOKEN": "${env.HF_TOKEN}",
                "VLLM_USE_V1": "0",
                "OTEL_SERVICE_NAME": "chat",
            },
        }
    ]
    assert adoption.keys == ("sk-of-the-stack",)
    assert adoption.secrets == {"HF_TOKEN": "hf-of-the-stack"}
    assert any("vllmConfig.typo" in warning for warning in adoption.warnings)


@pytest.mark.parametrize(
    ("setting", "line", "construct"),
    [
        ("command=vllm serve /m --port 80%(process_num)02d\nnumprocs=1", 3, ""),
        ("command=vllm serve /m\nnumprocs=2", 4, "numprocs=2"),
        ("command=vllm serve %(ENV_MODEL)s", 3, r"%\(ENV_MODEL\)s"),
        ("directory=%(here)s\ncommand=vllm serve ./m", 3, r"%\(here\)s"),
    ],
)
def test_what_supervisord_fills_in_is_refused_by_line(
    setting: str, line: int, construct: str
) -> None:
    with pytest.raises(UsageError, match=f"line {line}: .*{construct}"):
        adopt_script(f"; mine\n[program:a]\n{setting}\n")


def test_a_units_faults_are_on_their_own_lines() -> None:
    unit = (
        "[Unit]\nDescription=x\n\n[Service]\nEnvironment=A=b\nExecStart=vllm serve \\\n  <model>\n"
    )
    with pytest.raises(UsageError, match=r"line 6: .*<model>"):
        adopt_script(unit)

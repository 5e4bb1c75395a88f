"""Facts from files on disk, and from headers without files; damaged ones get a sentence."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import CONFIGS
from planner_files import LLAMA, gguf_bytes, safetensors_header, write_safetensors

from yibu.errors import UnsupportedError, UsageError, VerificationError, YibuError
from yibu.planner.chat_template import takes_tools, thinks
from yibu.planner.explain import explain
from yibu.planner.facts import facts_from_headers, read_facts
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.weights.gguf import HeaderCutShortError

F32, Q4_0 = 0, 2
TENSORS = [("a", (64, 32), Q4_0, 0)]  # 1,152 bytes

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


def transformers_model(root: Path, config: dict[str, Any] = CONFIG) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps(config))
    return root


# ---------------------------------------------------------------------------- GGUF


def test_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    metadata = {**LLAMA, "tokenizer.chat_template": "{{ messages }}"}
    path.write_bytes(gguf_bytes(metadata, TENSORS, data=1152))
    facts = read_facts(path)
    assert (facts.format, facts.architecture, facts.quantization) == ("gguf", "llama", "Q4_0")
    assert (facts.weight_bytes, facts.parameters) == (1152, 2048)
    assert (facts.layers, facts.attention_heads, facts.kv_heads, facts.head_dim) == (2, 4, 2, 16)
    assert facts.max_context == 4096
    assert facts.chat_template
    assert not facts.pooling
    assert facts.files == ()


def test_gguf_pooling_and_per_layer_heads(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    metadata = {**LLAMA, "llama.pooling_type": 1, "llama.attention.head_count_kv": [0, 2]}
    path.write_bytes(gguf_bytes(metadata))
    facts = read_facts(path)
    assert facts.pooling
    assert facts.kv_heads == 2


def test_directory_with_one_gguf_and_a_projector(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(LLAMA, TENSORS, data=1152))
    (tmp_path / "mmproj-m.gguf").write_bytes(gguf_bytes({"general.architecture": "clip"}))
    assert read_facts(tmp_path).files == ("m.gguf",)


def test_directory_with_several_ggufs_asks_which(tmp_path: Path) -> None:
    for name in ("m-Q4.gguf", "m-Q8.gguf"):
        (tmp_path / name).write_bytes(gguf_bytes(LLAMA))
    with pytest.raises(UsageError, match=r"2 GGUF models.*m-Q4, m-Q8") as caught:
        read_facts(tmp_path)
    assert "#FILE" in caught.value.hint


def test_files_of_one_name_in_two_folders_are_two_models(tmp_path: Path) -> None:
    for folder in ("Q4_0", "Q8_0"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.gguf").write_bytes(gguf_bytes(LLAMA, TENSORS, data=1152))
    with pytest.raises(UsageError, match=r"2 GGUF models.*Q4_0/m, Q8_0/m"):
        read_facts(tmp_path)


def test_split_gguf_is_one_model(tmp_path: Path) -> None:
    for part in (1, 2):
        metadata = LLAMA if part == 1 else {"split.no": 1}
        raw = gguf_bytes(metadata, TENSORS, data=1152)
        (tmp_path / f"m-0000{part}-of-00002.gguf").write_bytes(raw)
    facts = read_facts(tmp_path)
    assert facts.weight_bytes == 2 * 1152
    assert facts.files == ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    assert read_facts(tmp_path / "m-00001-of-00002.gguf").weight_bytes == 2 * 1152
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(VerificationError, match="1 of 2 GGUF parts"):
        read_facts(tmp_path)


@given(keep=st.integers(min_value=0, max_value=10_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_gguf_is_found_wherever_it_was_cut(tmp_path: Path, keep: int) -> None:
    whole = gguf_bytes(LLAMA, TENSORS, data=1152)
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: keep % len(whole)])
    with pytest.raises(VerificationError, match=r"cut short|goes on beyond|is empty"):
        read_facts(path)


# ---------------------------------------------------------------------------- safetensors


def test_one_safetensors_file(tmp_path: Path) -> None:
    root = transformers_model(tmp_path)
    write_safetensors(root / "model.safetensors", {"w": ("BF16", [100, 64]), "b": ("F32", [8])})
    (root / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    facts = read_facts(root)
    assert (facts.format, facts.architecture) == ("safetensors", "LlamaForCausalLM")
    assert (facts.weight_bytes, facts.parameters) == (100 * 64 * 2 + 32, 6408)
    assert (facts.kv_heads, facts.head_dim, facts.max_context) == (2, 16, 2048)
    assert facts.chat_template
    assert not facts.estimated
    assert facts.details["vocab_size"] == 100


def test_shards_by_index_and_a_missing_one(tmp_path: Path) -> None:
    root = transformers_model(tmp_path)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": shards[0], "b": shards[1]}}
    (root / "model.safetensors.index.json").write_text(json.dumps(index))
    # Mistral's own format lies beside and is not to be counted.
    write_safetensors(root / "consolidated.safetensors", {"a": ("BF16", [999])})
    for shard in shards:
        write_safetensors(root / shard, {"a": ("BF16", [50])})
    assert read_facts(root).weight_bytes == 200
    (root / shards[1]).unlink()
    with pytest.raises(VerificationError, match=r"1 of 2 weight files are missing.*00002"):
        read_facts(root)


def test_packed_weights_are_counted_unpacked(tmp_path: Path) -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}}
    root = transformers_model(tmp_path, config)
    write_safetensors(
        root / "model.safetensors",
        {
            "l.qweight": ("I32", [64, 8]),  # eight 4-bit weights in each
            "l.scales": ("F16", [1, 64]),
            "l.qzeros": ("I32", [1, 8]),
            "norm": ("F16", [64]),
        },
    )
    facts = read_facts(root)
    assert facts.parameters == 64 * 64 + 64
    assert facts.quantization == "awq"
    assert facts.weight_bytes == 64 * 8 * 4 + 128 + 32 + 128


def test_a_file_shorter_than_its_header_says(tmp_path: Path) -> None:
    root = transformers_model(tmp_path)
    path = root / "model.safetensors"
    write_safetensors(path, {"w": ("BF16", [100, 64])})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(VerificationError, match="cut short"):
        read_facts(root)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "cut short"),
        (struct.pack("<Q", 1 << 62), "would be 4611686018427387904 bytes"),
        (struct.pack("<Q", 10) + b"{}", "cut short"),
        (struct.pack("<Q", 4) + b"nope", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "instead of an object"),
        (struct.pack("<Q", 7) + b'{"a":1}', "not valid at 'a'"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ],
)
def test_damaged_safetensors(tmp_path: Path, raw: bytes, words: str) -> None:
    root = transformers_model(tmp_path)
    (root / "model.safetensors").write_bytes(raw)
    with pytest.raises(VerificationError) as caught:
        read_facts(root)
    assert words in str(caught.value)


def test_offsets_that_contradict_the_shape() -> None:
    header = {"w": {"dtype": "BF16", "shape": [1 << 60], "data_offsets": [0, 8]}}
    with pytest.raises(VerificationError, match="8 bytes for"):
        facts_from_headers(name="m", config=CONFIG, headers={"model.safetensors": header})


def test_pickles_are_refused(tmp_path: Path) -> None:
    root = transformers_model(tmp_path)
    (root / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(UnsupportedError, match="pickles"):
        read_facts(root)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"architectures": None, "model_type": None}, UnsupportedError),
        ({"num_hidden_layers": -1}, VerificationError),
        ({"num_hidden_layers": "many"}, VerificationError),
        ({"hidden_size": 1 << 80}, VerificationError),
        ({"num_key_value_heads": 2.5}, VerificationError),
    ],
)
def test_configs_that_make_no_sense(change: dict[str, Any], error: type[YibuError]) -> None:
    with pytest.raises(error):
        facts_from_headers(name="m", config={**CONFIG, **change})


def test_a_model_type_is_enough_to_plan() -> None:
    named = facts_from_headers(name="m", config={**CONFIG, "architectures": None})
    assert named.architecture == CONFIG["model_type"]


TOUCHY = [
    *CONFIG,
    "quantization_config",
    "text_config",
    "layer_types",
    "sliding_window",
    "sliding_window_pattern",
    "kv_lora_rank",
    "full_attention_interval",
    "attn_layer_offset",
    "hybrid_override_pattern",
    "head_dim",
    "linear_num_value_heads",
    "num_experts",
    "moe_layer_freq",
    "mlp_only_layers",
    "first_k_dense_replace",
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 300) | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(TOUCHY), ANYTHING, max_size=5))
def test_any_config_gives_a_plan_or_a_typed_error(change: dict[str, Any]) -> None:
    # Any other exception fails the test.
    with contextlib.suppress(YibuError):
        facts = facts_from_headers(name="m", config={**CONFIG, **change})
        request = Request("m", "paged", facts)
        for machine in ("2x24g", "laptop-16g"):
            (result,) = plan([request], BUILT_IN[machine])
            assert explain(request, result)


@pytest.mark.parametrize("layers", [10_001, 1 << 31])
def test_layers_are_bounded(layers: int) -> None:
    with pytest.raises(VerificationError, match="layers"):
        facts_from_headers(name="m", config={**CONFIG, "num_hidden_layers": layers})
    raw = gguf_bytes({**LLAMA, "llama.block_count": layers})
    with pytest.raises(VerificationError, match="layers"):
        facts_from_headers(name="m", gguf_prefix=raw)


# ---------------------------------------------------------------------------- headers


def test_index_total_is_used_when_no_header_was_fetched() -> None:
    index = {"metadata": {"total_size": 16060522496}, "weight_map": {}}
    facts = facts_from_headers(name="m", config=CONFIGS["Llama-3.1-8B"], index=index)
    assert facts.weight_bytes == 16060522496
    assert not facts.estimated
    header = safetensors_header({"w": ("BF16", [10])})
    facts = facts_from_headers(
        name="m", config=CONFIGS["Llama-3.1-8B"], index=index, headers={"a": header}
    )
    assert facts.weight_bytes == 20


def test_gguf_prefix_grows_until_it_is_enough() -> None:
    whole = gguf_bytes({**LLAMA, "tokenizer.ggml.tokens": ["ab"] * 9000}, TENSORS, data=1152)
    have, sizes = 64, []
    while not sizes or have > sizes[-1]:
        sizes.append(have)
        with contextlib.suppress(HeaderCutShortError):
            facts = facts_from_headers(name="m", gguf_prefix=whole[:have], gguf_size=len(whole))
            break
        with pytest.raises(HeaderCutShortError) as caught:
            facts_from_headers(name="m", gguf_prefix=whole[:have])
        have = max(caught.value.needed, 2 * have)
    assert len(sizes) < 20
    assert facts.weight_bytes == 1152
    with pytest.raises(VerificationError, match="cut short"):
        facts_from_headers(name="m", gguf_prefix=whole, gguf_size=len(whole) - 1)


# ---------------------------------------------------------------------------- speech


def test_sensevoice(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: SenseVoiceSmall\nfrontend_conf: {fs: 16000}\n")
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"x" * 1000)
    facts = read_facts(tmp_path)
    assert (facts.format, facts.architecture) == ("sensevoice", "SenseVoiceSmall")
    assert facts.weight_bytes == (tmp_path / "model.pt").stat().st_size
    assert facts.max_context is None
    raw = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(VerificationError, match="cut short"):
        read_facts(tmp_path)


def test_the_published_sensevoice_config(tmp_path: Path) -> None:
    published = Path(__file__).parents[3] / "shared" / "sensevoice" / "config.yaml"
    if not published.exists():
        pytest.skip(f"needs the published config at {published}")
    shutil.copy(published, tmp_path)
    (tmp_path / "model.pt").write_bytes(b"\x80\x02legacy")
    assert read_facts(tmp_path).format == "sensevoice"


def test_other_funasr_models_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: Whisper\n")
    (tmp_path / "model.pt").write_bytes(b"\x80\x02")
    with pytest.raises(UnsupportedError, match="FunASR's 'Whisper'"):
        read_facts(tmp_path)
    (tmp_path / "config.yaml").write_text("model: FsmnVADStreaming\n")
    with pytest.raises(UnsupportedError, match="finds speech: name it as the option `vad`"):
        read_facts(tmp_path)


@pytest.mark.parametrize(
    "model", ["Paraformer", "BiCifParaformer", "SeacoParaformer", "ParaformerStreaming"]
)
def test_paraformers(tmp_path: Path, model: str) -> None:
    (tmp_path / "config.yaml").write_text(f"model: {model}\n")
    (tmp_path / "model.pt").write_bytes(b"\x80\x02legacy")
    facts = read_facts(tmp_path)
    assert (facts.format, facts.architecture) == ("paraformer", model)
    (tmp_path / "model.pt").unlink()
    (tmp_path / "model.onnx").write_bytes(b"o")
    assert read_facts(tmp_path).format == "paraformer-onnx"
    (tmp_path / "config.yaml").write_text("frontend: WavFrontend\n")
    assert read_facts(tmp_path).format == "sensevoice-onnx"
    (tmp_path / "tokens.json").write_text("[]")
    assert read_facts(tmp_path).format == "paraformer-onnx"


def test_sensevoice_onnx_prefers_the_quantized_graph(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: SenseVoiceSmall\n")
    (tmp_path / "model.onnx").write_bytes(b"o" * 400)
    assert read_facts(tmp_path).files == ("model.onnx",)
    (tmp_path / "model_quant.onnx").write_bytes(b"o" * 100)
    facts = read_facts(tmp_path)
    assert (facts.format, facts.files) == ("sensevoice-onnx", ("model_quant.onnx",))
    assert facts.weight_bytes == 100


def test_whisper_for_ctranslate2(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"w" * 500)
    (tmp_path / "config.json").write_text('{"alignment_heads": [], "suppress_ids": []}')
    (tmp_path / "vocabulary.txt").write_text("a\n")
    facts = read_facts(tmp_path)
    assert (facts.format, facts.weight_bytes) == ("whisper-ct2", 500)


# ---------------------------------------------------------------------------- neither


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_facts(tmp_path / "nothing")


def test_unknown_layouts_say_what_they_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UnsupportedError, match=r"found: notes\.txt"):
        read_facts(tmp_path)
    with pytest.raises(UnsupportedError, match="no GGUF"):
        read_facts(tmp_path / "notes.txt")


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "[" * 100_000])
def test_damaged_config_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(VerificationError, match=r"config\.json"):
        read_facts(tmp_path)


@pytest.mark.parametrize(
    ("template", "takes"),
    [
        ("{% if tools %}{{ tools | tojson }}{% endif %}", True),
        ("{%- for tool in tools %}{{ tool }}{% endfor %}", True),
        ("{{- 'a' if not tools is none else '' }}", True),
        ("{% if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}", True),
        ("{{ messages }}", False),
        ("tools: {{ messages }}", False),  # text, not code
        ("{# tools #}{{ messages }}", False),
        ("{% if 'tools' in message %}{{ message['tools'] }}{% endif %}", False),  # Phi-4-mini's
        ("{{ message.tools }}{{ tools_in_user_message }}", False),
        ('{{ "see \\" tools" }}', False),
    ],
)
def test_whether_a_template_takes_tools(tmp_path: Path, template: str, takes: bool) -> None:
    assert takes_tools(template) is takes
    root = transformers_model(tmp_path)
    write_safetensors(root / "model.safetensors", {"w": ("BF16", [8])})
    (root / "chat_template.jinja").write_text(template)
    facts = read_facts(root)
    assert (facts.chat_template, facts.template_takes_tools) == (True, takes)


@pytest.mark.parametrize(
    ("template", "does"),
    [
        (
            "{% if enable_thinking is defined and enable_thinking is false %}<think>{% endif %}",
            True,
        ),
        (
            "{{ content.split('</think>')[-1] }}{{ '<｜Assistant｜><think>\\n' }}",
            True,
        ),  # DeepSeek R1
        ("{{ 'Reasoning: ' + reasoning_effort }}", True),  # gpt-oss
        ("{%- if message.reasoning_content %}", True),
        ("{{ '<|START_THINKING|>' }}", True),  # Command A
        ("{%- if thinking %}{{ 'Respond in two parts' }}{% endif %}", True),  # Granite
        ("{{ '[THINK]' }}", True),  # Magistral
        ("{{ '<seed:think>' }}", True),  # Seed-OSS
        ("{% if '</thought>' in content %}", True),  # EXAONE Deep
        ("{{ 'no thinking' }}{{ message.thinking_budget }}", False),
        ("{% for message in messages %}<|im_start|>{{ message.content }}{% endfor %}", False),
        ("{{ 'You are a helpful assistant that thinks step by step' }}", False),
        ("", False),
    ],
)
def test_whether_a_template_is_of_a_model_that_thinks(
    tmp_path: Path, template: str, does: bool
) -> None:
    assert thinks(template) is does
    root = transformers_model(tmp_path)
    write_safetensors(root / "model.safetensors", {"w": ("BF16", [8])})
    (root / "chat_template.jinja").write_text(template)
    assert read_facts(root).template_thinks is does
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes({**LLAMA, "tokenizer.chat_template": template}, []))
    assert read_facts(path).template_thinks is does


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("{{ tools }}", (True, True)),
        ([{"name": "default", "template": "x"}], (True, False)),
        ([{"name": "default", "template": "x"}, {"name": "tool_use", "template": "{{ tools }}"}],
         (True, True)),
        ({"default": "{{ tools }}"}, (True, True)),
        ("", (False, False)),
        (None, (False, False)),
        ([7, {"name": "x"}], (False, False)),
    ],
)  # fmt: skip
def test_templates_in_the_tokenizers_config(
    tmp_path: Path, value: object, found: tuple[bool, bool]
) -> None:
    root = transformers_model(tmp_path)
    write_safetensors(root / "model.safetensors", {"w": ("BF16", [8])})
    (root / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    facts = read_facts(root)
    assert (facts.chat_template, facts.template_takes_tools) == found

"""config.json values of well-known models, as published, with their published parameter counts.

Only the fields that matter for memory are kept. Those marked "read" were compared with copies of
the published config.json in public repositories; those marked "recalled" are the values of the
model's card and of the literature, and stand or fall with their parameter count, which is exact
only when every width is right.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from yibu.planner.facts import facts_from_headers
from yibu.planner.types import ModelFacts


def qwen2(
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    kv: int,
    vocab: int,
    *,
    tied: bool,
    context: int = 131072,
) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "sliding_window": context,
        "use_sliding_window": False,
        "max_window_layers": layers,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }


def qwen3(
    hidden: int, inner: int, layers: int, heads: int, kv: int, *, tied: bool, **more: Any
) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "sliding_window": None,
        "use_sliding_window": False,
        "attention_bias": False,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        **more,
    }


def qwen3_moe(hidden: int, inner: int, layers: int, heads: int, expert: int) -> dict[str, Any]:
    return qwen3(
        hidden,
        inner,
        layers,
        heads,
        4,
        tied=False,
        architectures=["Qwen3MoeForCausalLM"],
        model_type="qwen3_moe",
        moe_intermediate_size=expert,
        num_experts=128,
        num_experts_per_tok=8,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    )


def llama(
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    kv: int,
    vocab: int = 128256,
    context: int = 131072,
    *,
    tied: bool = False,
    **more: Any,
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "torch_dtype": "bfloat16",
        **more,
    }


def gpt_oss(layers: int, experts: int) -> dict[str, Any]:
    return {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "head_dim": 64,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
        "max_position_embeddings": 131072,
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "num_local_experts": experts,
        "quantization_config": {"quant_method": "mxfp4"},
        "sliding_window": 128,
        "tie_word_embeddings": False,
        "vocab_size": 201088,
    }


DEEPSEEK_V3: dict[str, Any] = {  # read
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "attention_bias": False,
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {"fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 129280,
}

GEMMA_2_9B: dict[str, Any] = {  # recalled
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "head_dim": 256,
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 16,
    "num_hidden_layers": 42,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
    "torch_dtype": "float32",
    "vocab_size": 256000,
}

GEMMA_3_27B: dict[str, Any] = {  # recalled; the published one leaves vocab_size to its class
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text",
        "head_dim": 128,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "sliding_window": 1024,
    },
}

GLM_4_9B: dict[str, Any] = {  # recalled
    "architectures": ["ChatGLMModel"],
    "model_type": "chatglm",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "ffn_hidden_size": 13696,
    "hidden_size": 4096,
    "kv_channels": 128,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "num_layers": 40,
    "padded_vocab_size": 151552,
    "vocab_size": 151552,
    "seq_length": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}

QWEN_3_5_35B: dict[str, Any] = {  # read
    "architectures": ["Qwen3_5MoeForConditionalGeneration"],
    "model_type": "qwen3_5_moe",
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "qwen3_5_moe_text",
        "dtype": "bfloat16",
        "attn_output_gate": True,
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_size": 2048,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 10,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
        "max_position_embeddings": 262144,
        "moe_intermediate_size": 512,
        "num_attention_heads": 16,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "shared_expert_intermediate_size": 512,
        "vocab_size": 248320,
    },
}

QWEN25_72B = qwen2(8192, 29568, 80, 64, 8, 152064, tied=False, context=32768)

# name → (config, published parameters of the language model)
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "SmolLM2-135M": (llama(576, 1536, 30, 9, 3, 49152, 8192, tied=True), 134_515_008),  # GGUF
    "Qwen2.5-1.5B": (qwen2(1536, 8960, 28, 12, 2, 151936, tied=True), 1_543_714_304),
    "DeepSeek-R1-Distill-Qwen-1.5B": (
        qwen2(1536, 8960, 28, 12, 2, 151936, tied=False),
        1_777_088_000,
    ),
    "Qwen2.5-7B": (qwen2(3584, 18944, 28, 28, 4, 152064, tied=False), 7_615_616_512),  # read
    "Qwen2.5-72B": (QWEN25_72B, 72_706_203_648),
    "Qwen2.5-72B-AWQ": (
        {
            **QWEN25_72B,
            "torch_dtype": "float16",
            "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128},
        },
        72_706_203_648,
    ),
    "Qwen3-0.6B": (qwen3(1024, 3072, 28, 16, 8, tied=True), 596_049_920),  # read
    "Qwen3-8B": (qwen3(4096, 12288, 36, 32, 8, tied=False), 8_190_735_360),  # read
    "Qwen3-30B-A3B": (qwen3_moe(2048, 6144, 48, 32, 768), 30_532_122_624),  # read
    "Qwen3-235B-A22B": (qwen3_moe(4096, 12288, 94, 64, 1536), 235_093_634_560),  # read
    "Llama-3.1-8B": (llama(4096, 14336, 32, 32, 8), 8_030_261_248),  # read
    "Llama-3.1-70B": (llama(8192, 28672, 80, 64, 8), 70_553_706_496),  # read
    "Llama-3.1-405B": (llama(16384, 53248, 126, 128, 8), 405_853_388_800),  # read
    "Mistral-7B-v0.1": (
        llama(
            4096,
            14336,
            32,
            32,
            8,
            32000,
            32768,
            architectures=["MistralForCausalLM"],
            model_type="mistral",
            sliding_window=4096,
        ),
        7_241_732_096,
    ),
    "Mixtral-8x7B": (  # read
        llama(
            4096,
            14336,
            32,
            32,
            8,
            32000,
            32768,
            architectures=["MixtralForCausalLM"],
            model_type="mixtral",
            sliding_window=None,
            num_local_experts=8,
            num_experts_per_tok=2,
        ),
        46_702_792_704,
    ),
    "Gemma-2-9B": (GEMMA_2_9B, 9_241_705_984),
    "Gemma-3-27B": (GEMMA_3_27B, 27_009_346_304),
    "Phi-3-mini-4k": (
        llama(
            3072,
            8192,
            32,
            32,
            32,
            32064,
            4096,
            architectures=["Phi3ForCausalLM"],
            model_type="phi3",
            sliding_window=2047,
        ),
        3_821_079_552,  # read
    ),
    "Phi-4": (
        llama(
            5120,
            17920,
            40,
            40,
            10,
            100352,
            16384,
            architectures=["Phi3ForCausalLM"],
            model_type="phi3",
            sliding_window=None,
        ),
        14_659_507_200,
    ),
    "GLM-4-9B": (GLM_4_9B, 9_399_951_360),
    "DeepSeek-V3": (DEEPSEEK_V3, 671_026_419_200),
    "gpt-oss-20b": (gpt_oss(24, 32), 20_914_757_184),  # read
    "gpt-oss-120b": (gpt_oss(36, 128), 116_829_156_672),  # read
}


@cache
def facts_of(name: str) -> ModelFacts:
    return facts_from_headers(name=name, config=MODELS[name][0])

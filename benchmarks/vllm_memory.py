"""What vLLM allocates for a model's weights and KV cache, beside what the planner predicts.

    PYTHONPATH=src PYTHON_OF_A_VLLM_ENVIRONMENT benchmarks/vllm_memory.py [--only SHAPE]

Run it with the interpreter of a vLLM environment (``yibu engine ls`` shows where they are). It
writes small random models of several shapes, lets vLLM load each, and prints the tensors' bytes
as torch counts them, the planner's bytes, and their ratio, for the slots of LoRA adapters and for
an adapter that changes every layer too. Exit 1 if one is off by over 10 %.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CACHE_BYTES = 256 << 20
LORA_RANK, LORA_SLOTS = 32, 2
COMMON: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHAPES: dict[str, dict[str, Any]] = {
    "grouped heads, output matrix of its own": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    },
    "all heads, tied, biased": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "wide heads, norms of queries and keys": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
}


def write_model(directory: Path, config: dict[str, Any]) -> None:
    """Random weights in the layout that the config describes, through transformers' own class."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    (directory / "config.json").write_text(json.dumps(config))
    loaded = AutoConfig.from_pretrained(directory)
    model = AutoModelForCausalLM.from_config(loaded, dtype=torch.bfloat16)
    model.save_pretrained(directory)


def write_adapter(directory: Path, config: dict[str, Any]) -> None:
    """A LoRA adapter of the largest rank for every linear layer."""
    import torch
    from safetensors.torch import save_file

    hidden, wide = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    sizes = {
        "self_attn.q_proj": (hidden, queries), "self_attn.k_proj": (hidden, keys),
        "self_attn.v_proj": (hidden, keys), "self_attn.o_proj": (queries, hidden),
        "mlp.gate_proj": (hidden, wide), "mlp.up_proj": (hidden, wide),
        "mlp.down_proj": (wide, hidden),
    }  # fmt: skip
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (into, out) in sizes.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.rand(LORA_RANK, into).bfloat16()
            tensors[f"{prefix}.lora_B.weight"] = torch.rand(out, LORA_RANK).bfloat16()
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    targets = [name.partition(".")[2] for name in sizes]
    adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": LORA_RANK, "lora_alpha": 8,
               "target_modules": targets, "bias": "none"}  # fmt: skip
    (directory / "adapter_config.json").write_text(json.dumps(adapter))


def lora_bytes(worker: Any) -> tuple[int, int]:
    """Bytes of the slots' tensors, and of the adapters that are kept."""
    manager = worker.model_runner.lora_manager._adapter_manager
    slots: dict[int, int] = {}
    for module in worker.model_runner.model.modules():
        for name in ("lora_a_stacked", "lora_b_stacked"):
            found = getattr(module, name, ())
            for tensor in found if isinstance(found, (tuple, list)) else (found,):
                slots[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    kept: dict[int, int] = {}
    for adapter in manager.list_adapters().values():
        for weights in adapter.loras.values():
            for side in (weights.lora_a, weights.lora_b):
                for tensor in side if isinstance(side, list) else (side,):
                    kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(slots.values()), sum(kept.values())


def measure(directory: Path) -> dict[str, int]:
    """Bytes of parameters, cache tensors and LoRA's, and tokens the cache holds, in one vLLM."""
    from vllm import LLM
    from vllm.lora.request import LoRARequest
    from vllm.model_executor.model_loader import base_loader

    # On a CPU vLLM then packs most matrices into buffers of oneDNN's that torch does not see, so
    # the weights are counted when they are loaded and not packed yet.
    weights: dict[int, int] = {}
    pack = base_loader.process_weights_after_loading

    def count_and_pack(model: Any, *rest: Any) -> None:
        weights.update({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()})
        pack(model, *rest)

    base_loader.process_weights_after_loading = count_and_pack
    llm = LLM(
        str(directory),
        skip_tokenizer_init=True,
        enforce_eager=True,
        kv_cache_memory_bytes=CACHE_BYTES,
        max_model_len=1024,
        max_num_seqs=8,
        enable_lora=True,
        max_lora_rank=LORA_RANK,
        max_loras=LORA_SLOTS,
    )
    for number in range(1, LORA_SLOTS + 1):
        llm.llm_engine.add_lora(LoRARequest(f"a{number}", number, str(directory / "adapter")))

    def cache_bytes(worker: Any) -> int:
        return sum(c.numel() * c.element_size() for c in worker.model_runner.kv_caches)

    (cache,) = llm.collective_rpc(cache_bytes)
    ((slots, kept),) = llm.collective_rpc(lora_bytes)
    settings = llm.llm_engine.vllm_config.cache_config
    blocks = settings.num_gpu_blocks or settings.num_cpu_blocks or 0
    return {
        "weights": sum(weights.values()),
        "cache": cache,
        "tokens": blocks * settings.block_size,
        "slots": slots,
        "kept": kept,
    }


def child(directory: Path) -> None:
    from yibu.planner.arithmetic import kv_bytes_per_token
    from yibu.planner.facts import facts_from_headers, read_facts
    from yibu.planner.lora import Slots, kept_bytes, slot_bytes

    config = json.loads((directory / "config.json").read_text())
    write_model(directory, config)
    write_adapter(directory / "adapter", config)
    slots = Slots(LORA_SLOTS, LORA_RANK)
    facts = read_facts(directory)
    estimate = facts_from_headers(name="m", config=config)
    real = measure(directory)
    rows = {
        "weights, by headers": (facts.weight_bytes, real["weights"]),
        "weights, by config.json": (estimate.weight_bytes, real["weights"]),
        "KV cache": (kv_bytes_per_token(facts) * real["tokens"], real["cache"]),
        "LoRA slots": (slot_bytes(facts, slots), real["slots"]),
        "LoRA adapters kept": (kept_bytes(facts, slots), real["kept"]),
    }
    print("RESULT " + json.dumps(rows), flush=True)


def main() -> int:
    shapes = SHAPES
    if sys.argv[1:2] == ["--only"]:
        shapes = {sys.argv[2]: SHAPES[sys.argv[2]]}
    elif len(sys.argv) > 1:
        child(Path(sys.argv[1]))
        return 0
    env = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    worst = 0.0
    for shape, config in shapes.items():
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "config.json").write_text(json.dumps({**COMMON, **config}))
            run = subprocess.run(
                [sys.executable, __file__, directory],
                env=env, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
        line = next((li for li in run.stdout.splitlines() if li.startswith("RESULT ")), None)
        if line is None:
            sys.stderr.write(run.stdout[-2000:] + run.stderr[-4000:])
            return 1
        print(shape)
        for what, (predicted, real) in json.loads(line.removeprefix("RESULT ")).items():
            ratio = predicted / real if real else float("inf")
            worst = max(worst, abs(ratio - 1))
            print(f"  {what:26} predicted {predicted:>12,}  allocated {real:>12,}  {ratio:.3f}")
    return int(worst > 0.1)


if __name__ == "__main__":
    sys.exit(main())

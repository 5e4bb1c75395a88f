"""Write a LoRA adapter with random weights for a Llama-like model, for tests.

Run it with the vllm environment's interpreter:

    $ENVIRONMENT/bin/python scripts/random_lora.py DIRECTORY --model MODEL_DIRECTORY [--rank 8]

Its weights are large enough that a model with it says something else than without.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig

_TARGETS = ("q_proj", "v_proj")
_SCALE = 0.05
"""Far from a trained adapter's, and near enough that words still come."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="the directory to write")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=8)
    arguments = parser.parse_args()
    config = AutoConfig.from_pretrained(arguments.model)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    outputs = {"q_proj": config.num_attention_heads, "v_proj": config.num_key_value_heads}
    torch.manual_seed(0)
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for name in _TARGETS:
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            down = torch.randn(arguments.rank, config.hidden_size) / config.hidden_size**0.5
            up = _SCALE * torch.randn(outputs[name] * head, arguments.rank)
            tensors[f"{prefix}.lora_A.weight"] = down.to(torch.bfloat16)
            tensors[f"{prefix}.lora_B.weight"] = up.to(torch.bfloat16)
    arguments.target.mkdir(parents=True)
    save_file(tensors, arguments.target / "adapter_model.safetensors")
    adapter = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": arguments.rank,
        "lora_alpha": 2 * arguments.rank, "target_modules": list(_TARGETS), "bias": "none",
        "base_model_name_or_path": str(arguments.model),
    }  # fmt: skip
    text = json.dumps(adapter, indent=1)
    (arguments.target / "adapter_config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

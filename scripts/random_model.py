"""Write a tiny Llama or Qwen2 with random weights and eight heads, for tests.

Run it with the vllm environment's interpreter; the tokenizer is another model's:

    $ENVIRONMENT/bin/python scripts/random_model.py DIRECTORY --tokenizer OTHER_DIRECTORY
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="the directory to write")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--type", choices=["llama", "qwen2"], default="llama")
    parser.add_argument("--token", action="append", default=[], help="one more for its tokenizer")
    parser.add_argument("--reranker", action="store_true", help="one that gives a pair a score")
    parser.add_argument("--no-chat-template", action="store_true", help="one that cannot chat")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    tokenizer.add_tokens(arguments.token)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        arguments.type,
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    kind = AutoModelForCausalLM
    if arguments.reranker:
        kind = AutoModelForSequenceClassification
        config.num_labels = 1
    if arguments.no_chat_template:
        tokenizer.chat_template = None
    model = kind.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(arguments.target)
    tokenizer.save_pretrained(arguments.target)


if __name__ == "__main__":
    main()

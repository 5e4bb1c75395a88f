"""Write a tiny BERT cross-encoder with random weights, for tests of /v1/rerank and /v1/score.

Run it with the vllm environment's interpreter; it makes its own small vocabulary:

    $ENVIRONMENT/bin/python scripts/random_cross_encoder.py DIRECTORY
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="the directory to write")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True)
    letters = [*string.ascii_lowercase, *string.digits]
    vocabulary = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    file = arguments.target / "vocab.txt"
    file.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(file))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        num_labels=1,
        pad_token_id=0,
    )
    BertForSequenceClassification(config).save_pretrained(arguments.target)
    tokenizer.save_pretrained(arguments.target)


if __name__ == "__main__":
    main()

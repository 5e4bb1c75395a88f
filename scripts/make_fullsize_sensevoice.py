"""Makes a directory of exactly SenseVoiceSmall's shape, with random weights.

    python scripts/make_fullsize_sensevoice.py ../shared/sensevoice OUT [--speaks TINY]

For measuring speed and memory. The first directory holds the real model's config.yaml,
configuration.json, am.mvn and tokens.txt. It recognizes nothing, unless TINY is a trained model of the
same classes and as many heads (the tests' fixture, unpacked): then it computes as much as any of its
size and says what TINY says, so that partial texts and first texts can be measured too. Needs torch and
funasr.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import sentencepiece_file
import torch
import yaml
from funasr.models.sense_voice.model import SenseVoiceSmall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dither", type=float, help="write this frontend_conf.dither")
    parser.add_argument("--speaks", type=Path, metavar="TINY", help="say what this model says")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("configuration.json", "am.mvn", "NOTICE"):
        shutil.copy(arguments.source / name, arguments.out / name)
    if arguments.speaks:
        shutil.copy(arguments.speaks / "am.mvn", arguments.out / "am.mvn")
    config = yaml.safe_load((arguments.source / "config.yaml").read_text("utf-8"))
    if arguments.dither is not None:
        config["frontend_conf"]["dither"] = arguments.dither
    text = yaml.safe_dump(config, allow_unicode=True)
    (arguments.out / "config.yaml").write_text(text, "utf-8")

    # The list has a plain space where the pieces have sentencepiece's mark for one.
    lines = (arguments.source / "tokens.txt").read_text("utf-8").split("\n")
    pieces = [line.replace(" ", "\u2581") for line in lines if line]
    sentencepiece_file.write(arguments.out / "chn_jpn_yue_eng_ko_spectok.bpe.model", pieces)

    torch.manual_seed(0)
    model = SenseVoiceSmall(
        encoder=config["encoder"],
        encoder_conf=config["encoder_conf"],
        input_size=560,
        vocab_size=len(pieces),
        **config["model_conf"],
    )
    weights = model.state_dict()
    if arguments.speaks:
        tiny = torch.load(arguments.speaks / "model.pt", map_location="cpu")
        enlarge(tiny, weights, config["encoder_conf"]["attention_heads"])
        made = arguments.out / "chn_jpn_yue_eng_ko_spectok.bpe.model"
        shutil.copy(arguments.speaks / made.name, made)
    torch.save(weights, arguments.out / "model.pt")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.out}: {count:,} parameters, {len(pieces):,} tokens")


def enlarge(tiny: dict[str, Any], weights: dict[str, Any], heads: int) -> None:
    """Put ``tiny`` into the larger ``weights``: each channel of its becomes several of the same head, equal
    ones, of which whatever reads them takes the mean. Layers that it lacks add nothing to what they are
    given. Layer norms see some channels once more than others: that is all the difference.
    """
    small, large = tiny["encoder.tp_norm.bias"].numel(), weights["encoder.tp_norm.bias"].numel()
    per_head, room = small // heads, large // heads
    within = torch.arange(room) % per_head
    source = (torch.arange(heads)[:, None] * per_head + within).flatten()
    share = 1 / torch.bincount(source)[source]
    once = (torch.arange(room) < per_head).repeat(heads)
    """Of a query's channels, those that count."""
    for name, target in weights.items():
        if name not in tiny:
            if name.endswith(("linear_out.weight", "w_2.weight", "fsmn_block.weight")):
                target.zero_()
            elif name.endswith("linear_q_k_v.weight"):
                target[2 * large :] = 0
            if name.endswith(("linear_out.bias", "w_2.bias", "linear_q_k_v.bias")):
                target.zero_()
            continue
        own = tiny[name]
        if own.ndim == 2 and own.shape[1] == small:
            own = own[:, source] * share
        if "linear_q_k_v" in name:
            query, key, value = (part[source] for part in own.split(small))
            query[~once] = 0
            own = torch.cat([query * (room / per_head) ** 0.5, key, value])
        elif own.shape[0] == small:
            own = own[source]
        target.zero_()
        target[tuple(slice(size) for size in own.shape)] = own


if __name__ == "__main__":
    main()

"""Makes a directory of exactly SenseVoiceSmall's shape, with random weights.

    python scripts/make_fullsize_sensevoice.py ../shared/sensevoice OUT

For measuring speed and memory only: it recognizes nothing. The first directory holds the
real model's config.yaml, configuration.json, am.mvn and tokens.txt. Needs torch and funasr.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import sentencepiece_file
import torch
import yaml
from funasr.models.sense_voice.model import SenseVoiceSmall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dither", type=float, help="write this frontend_conf.dither")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("configuration.json", "am.mvn", "NOTICE"):
        shutil.copy(arguments.source / name, arguments.out / name)
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
    torch.save(model.state_dict(), arguments.out / "model.pt")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.out}: {count:,} parameters, {len(pieces):,} tokens")


if __name__ == "__main__":
    main()

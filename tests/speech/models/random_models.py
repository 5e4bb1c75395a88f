"""Small FunASR models with random weights, and what FunASR itself computes with them.

Run as a program, in an environment with FunASR (speech-torch), it writes the fixture beside it:

    python -m tests.speech.models.random_models tests/speech/fixture/funasr.tar.xz

The models are of FunASR's own classes, in its directory layout, so narrow that they fit a repository.
The tests of an environment without FunASR compare with the answers kept in ``expected.json``; where
FunASR is installed, they compare with FunASR over other weights too.
"""

from __future__ import annotations

import json
import logging
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

VOCABULARY = [
    "<blank>", "<s>", "</s>", *"一二三四五六七八九十你好人大中国天气今明早晚上下去来说话语音识别模型",
    "a", "b", "u", "s", "ok", "it's", "hel@@", "lo", "wor@@", "ld", "hello", "world", "new", "york",
    "<unk>",
]  # fmt: skip
CHARACTERS = [token for token in VOCABULARY if "\u4e00" <= token <= "\u9fff"]
PUNCTUATION = ["<unk>", "_", "，", "。", "？", "、"]
WIDTH = 32
_ENCODER = {
    "output_size": WIDTH, "attention_heads": 4, "linear_units": 48, "num_blocks": 3,
    "dropout_rate": 0.1, "positional_dropout_rate": 0.1, "attention_dropout_rate": 0.1,
    "input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True,
    "kernel_size": 11, "sanm_shfit": 0, "selfattention_layer_type": "sanm",
}  # fmt: skip
_DECODER = {
    "attention_heads": 4, "linear_units": 48, "num_blocks": 3, "dropout_rate": 0.1,
    "positional_dropout_rate": 0.1, "self_attention_dropout_rate": 0.1,
    "src_attention_dropout_rate": 0.1, "att_layer_num": 3, "kernel_size": 11, "sanm_shfit": 0,
}  # fmt: skip
_PREDICTOR = {"idim": WIDTH, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45}
_TIMED = {
    **_PREDICTOR, "smooth_factor2": 0.25, "noise_threshold2": 0.01, "upsample_times": 3,
    "use_cif1_cnn": False, "upsample_type": "cnn_blstm",
}  # fmt: skip
_COMMON = {
    "model_conf": {
        "ctc_weight": 0.0, "lsm_weight": 0.1, "length_normalized_loss": True,
        "predictor_weight": 1.0, "predictor_bias": 1, "sampling_ratio": 0.75,
    },
    "encoder": "SANMEncoder", "encoder_conf": _ENCODER,
    "decoder": "ParaformerSANMDecoder", "decoder_conf": _DECODER,
    "frontend": "WavFrontend",
    "frontend_conf": {
        "fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10,
        "lfr_m": 7, "lfr_n": 6, "dither": 0.0,
    },
    "tokenizer": "CharTokenizer", "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "paraformer": {
        **_COMMON, "model": "Paraformer",
        "predictor": "CifPredictorV2", "predictor_conf": _PREDICTOR,
        "decoder_conf": {**_DECODER, "att_layer_num": 2},
    },
    "bicif": {
        **_COMMON, "model": "BiCifParaformer",
        "predictor": "CifPredictorV3", "predictor_conf": _TIMED,
    },
    "seaco": {
        **_COMMON, "model": "SeacoParaformer",
        "model_conf": {
            **_COMMON["model_conf"], "inner_dim": WIDTH, "bias_encoder_type": "lstm",
            "bias_encoder_bid": False, "train_decoder": False, "NO_BIAS": 40,
        },
        "predictor": "CifPredictorV3", "predictor_conf": _TIMED,
        "seaco_decoder": "ParaformerSANMDecoder",
        "seaco_decoder_conf": {
            "attention_heads": 4, "linear_units": 40, "num_blocks": 4, "kernel_size": 21,
            "sanm_shfit": 0, "use_output_layer": False, "wo_input_layer": True,
        },
    },
    "online": {
        **_COMMON, "model": "ParaformerStreaming",
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {
            **_ENCODER, "input_layer": "pe_online", "chunk_size": [12, 15], "stride": [8, 10],
            "pad_left": [0, 0], "encoder_att_look_back_factor": [4, 4],
            "decoder_att_look_back_factor": [1, 1],
        },
        "decoder_conf": {**_DECODER, "sanm_shfit": 5},
        "predictor": "CifPredictorV2", "predictor_conf": _PREDICTOR,
        "frontend": "WavFrontendOnline",
    },
    "punctuation": {
        "model": "CTTransformer",
        "model_conf": {
            "ignore_id": 0, "embed_unit": WIDTH, "att_unit": WIDTH, "dropout_rate": 0.1,
            "punc_list": PUNCTUATION, "punc_weight": [1.0] * 6, "sentence_end_id": 3,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {**_ENCODER, "input_size": WIDTH, "padding_idx": 0},
        "tokenizer": "CharTokenizer", "tokenizer_conf": {"unk_symbol": "<unk>"},
    },
    "speakers": {
        "model": "CAMPPlus",
        "model_conf": {
            "feat_dim": 80, "embedding_size": 24, "growth_rate": 4, "bn_size": 2,
            "init_channels": 16, "config_str": "batchnorm-relu", "memory_efficient": True,
            "output_level": "segment",
        },
        "frontend": "WavFrontend", "frontend_conf": _COMMON["frontend_conf"],
    },
    "contextual": {
        **_COMMON, "model": "ContextualParaformer",
        "model_conf": {
            **_COMMON["model_conf"], "inner_dim": WIDTH, "bias_encoder_type": "lstm",
        },
        "decoder": "ContextualParaformerDecoder",
        "predictor": "CifPredictorV2", "predictor_conf": _PREDICTOR,
    },
}  # fmt: skip


def write(kind: str, directory: Path, seed: int) -> Path:
    """A model directory in FunASR's layout, with random weights. Needs FunASR."""
    import torch

    directory.mkdir(parents=True)
    config = CONFIGS[kind]
    (directory / "config.yaml").write_text(
        yaml.safe_dump(config, allow_unicode=True, sort_keys=False), "utf-8"
    )
    metas = {
        "init_param": "model.pt", "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json", "seg_dict_file": "seg_dict"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }  # fmt: skip
    (directory / "configuration.json").write_text(json.dumps({"file_path_metas": metas}), "utf-8")
    rng = np.random.default_rng(seed)
    if kind not in ("punctuation", "speakers"):
        means, scales = rng.uniform(-12, -8, 560), rng.uniform(0.2, 0.5, 560)
        (directory / "am.mvn").write_text(_mvn(means, scales), "utf-8")
    if kind != "speakers":
        (directory / "tokens.json").write_text(json.dumps(VOCABULARY, ensure_ascii=False), "utf-8")
    if kind in ("seaco", "contextual"):
        lines = [f"{word} {word}" for word in VOCABULARY[3:]] + ["hellold hel@@ lo ld"]
        (directory / "seg_dict").write_text("\n".join(lines) + "\n", "utf-8")
    torch.manual_seed(seed)
    torch.save({}, directory / "model.pt")
    model = automodel(directory).model
    for name, tensor in model.state_dict().items():
        if tensor.dtype.is_floating_point:
            _randomise(name, tensor, torch.Generator().manual_seed(seed + len(name)))
    if kind == "punctuation":  # some models rarely put a mark, and then texts are cut at commas
        model.decoder.bias.data[1] += 2.0 * (seed % 4)
    torch.save(model.state_dict(), directory / "model.pt")
    return directory


def add_dictionary(directory: Path) -> None:
    """Give a punctuation model a dictionary of words, as the large published one has."""
    words = ["大中国", "你好人", "语音识别", "今天", "明天", "天气"]
    (directory / "jieba_usr_dict").write_text("".join(f"{word} 99999\n" for word in words), "utf-8")
    metas = json.loads((directory / "configuration.json").read_text("utf-8"))
    metas["file_path_metas"]["jieba_usr_dict"] = "jieba_usr_dict"
    (directory / "configuration.json").write_text(json.dumps(metas), "utf-8")


def _randomise(name: str, tensor: Any, generator: Any) -> None:
    """Larger weights than a fresh model's, so that its answers differ; few digits pack well."""
    import torch

    noise = torch.randn(tensor.shape, generator=generator)
    if name.endswith("running_var"):
        tensor.copy_(noise.abs() + 0.5)
    elif "norm" in name and name.endswith("weight"):
        tensor.copy_(1 + 0.2 * noise)
    elif tensor.ndim > 1:
        fan = max(1, tensor[0].numel())
        gain = 0.5 if "linear_out" in name or name.endswith("linear_k_v.weight") else 2.5
        if "fsmn" in name or "cif_output" in name:
            gain = 1.0
        tensor.copy_(gain * noise / fan**0.5)
    else:
        tensor.copy_(0.3 * noise)
    tensor.copy_((tensor * 128).round() / 128)


def _mvn(shift: np.ndarray, scale: np.ndarray) -> str:
    rows = [" ".join(f"{value:.5f}" for value in row) for row in (shift, scale)]
    head = "<Nnet>\n<Splice> 560 560\n[ 0 ]\n"
    return (
        f"{head}<AddShift> 560 560\n<LearnRateCoef> 0 [ {rows[0]} ]\n"
        f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {rows[1]} ]\n</Nnet>\n"
    )


def automodel(directory: Path) -> Any:
    """FunASR's ``AutoModel`` over a directory."""
    from funasr import AutoModel

    return AutoModel(
        model=str(directory), disable_update=True, disable_pbar=True, device="cpu", ncpu=1,
        log_level="ERROR",
    )  # fmt: skip


def export(kind: str, directory: Path, to: Path) -> Path:
    """The model in the ONNX layout, as FunASR exports it, and quantised as FunASR quantises."""
    import shutil

    import torch
    from onnxruntime.quantization import quantize_dynamic

    to.mkdir(parents=True)
    for name in ("config.yaml", "am.mvn", "tokens.json"):
        if (directory / name).exists():
            shutil.copy(directory / name, to / name)
    auto = automodel(directory)
    options = {name: value for name, value in auto.kwargs.items() if name != "model"}
    options |= {"max_seq_len": 512, "device": "cpu", "type": "onnx"}
    exported = auto.model.export(**options).eval()
    torch.onnx.export(
        exported, exported.export_dummy_inputs(), to / "model.onnx", opset_version=14,
        input_names=exported.export_input_names(), output_names=exported.export_output_names(),
        dynamic_axes=exported.export_dynamic_axes(), dynamo=False,
    )  # fmt: skip
    quantize_dynamic(to / "model.onnx", to / "model_quant.onnx")
    return to


def noises(count: int, seed: int) -> list[np.ndarray]:
    """Sounds of 0.1 to 6 s whose spectrum and loudness change, at 16 kHz."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        samples = int(rng.integers(1_600, 96_000))
        time = np.arange(samples) / 16_000
        sound = rng.standard_normal(samples) * 0.02
        for _ in range(6):
            hertz, rate = rng.uniform(80, 4_000), rng.uniform(0.5, 6)
            sound += 0.1 * np.sin(6.283 * hertz * time) * np.sin(6.283 * rate * time) ** 2
        found.append((sound * 32768).round().clip(-32768, 32767).astype(np.float32) / 32768)
    return found


def texts(count: int, seed: int) -> list[str]:
    """Texts without punctuation, of 1 to 260 words, Chinese and English mixed."""
    rng = np.random.default_rng(seed)
    english = ["hello", "World", "it's", "ok", "USB", "3d", "x", "unknownword", "12"]
    found = []
    for _ in range(count):
        share = rng.uniform()
        words = [
            str(rng.choice(english)) if rng.uniform() < share else str(rng.choice(CHARACTERS))
            for _ in range(int(rng.integers(1, 260)))
        ]
        spaced = rng.uniform() < 0.5
        found.append(
            "".join(f" {word} " if spaced or word.isascii() else word for word in words).strip()
        )
    return found


def answers(kind: str, directory: Path, seed: int, count: int) -> list[dict[str, Any]]:
    """What FunASR answers to ``count`` random inputs of ``seed``. Needs FunASR."""
    model = automodel(directory)
    if kind == "punctuation":
        return [{"text": model.generate(input=text)[0]["text"]} for text in texts(count, seed)]
    found: list[dict[str, Any]] = []
    for n, sound in enumerate(noises(count, seed)):
        if kind == "speakers":
            vector = model.generate(input=sound)[0]["spk_embedding"][0]
            found.append({"vector": [float(value) for value in vector]})
        elif kind == "online":
            found.append({"texts": online(model, sound)})
        else:
            options = (
                {"hotword": hotwords(n)} if kind in ("seaco", "contextual") and hotwords(n) else {}
            )
            results = model.generate(input=sound, **options)
            answer = results[0] if results else {"text": ""}
            found.append({key: answer[key] for key in ("text", "timestamp") if key in answer})
    return found


def hotwords(n: int) -> str:
    """Those that the item ``n`` is given: none, some, or more than FunASR attends to at once."""
    rng = np.random.default_rng(n)
    words = [
        "".join(rng.choice(CHARACTERS, int(rng.integers(1, 5)))) for _ in range((0, 3, 70)[n % 3])
    ]
    return " ".join(words + ["hellold"] * (n % 3 == 1))


def online(model: Any, sound: np.ndarray, look_back: int = 4) -> list[str]:
    """The text of each chunk of 600 ms, as FunASR's streaming example asks for it."""
    cache: dict[str, Any] = {}
    stride = 9_600
    found = []
    for at in range(0, len(sound), stride):
        results = model.generate(
            input=sound[at : at + stride], cache=cache, is_final=at + stride >= len(sound),
            chunk_size=[0, 10, 5], encoder_chunk_look_back=look_back, decoder_chunk_look_back=1,
        )  # fmt: skip
        found.append(results[0]["text"])
    return found


def main(archive: Path) -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "funasr"
        expected = {}
        for number, kind in enumerate(CONFIGS):
            write(kind, root / kind, seed=100 + number)
            expected[kind] = answers(kind, root / kind, seed=7, count=6)
        (root / "expected.json").write_text(json.dumps(expected, ensure_ascii=False), "utf-8")
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(root, "funasr", filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
    return member


if __name__ == "__main__":
    main(Path(sys.argv[1]))

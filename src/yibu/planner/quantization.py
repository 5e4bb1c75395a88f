"""Bytes of a quantized weight, by the module that it belongs to.

A checkpoint's scheme says what most modules are stored in, which ones are left as they were, and,
where it is mixed, what single ones are stored in. Modules are asked for by name, as the
libraries that load them do.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from yibu.messages import tr
from yibu.planner.hf.settings import CannotTellError, Settings, number, section
from yibu.planner.hf.weights import Weights

MODELOPT = "hf_quant_config.json"
"""The file in which ModelOpt tells of quantization, beside config.json."""
_DTYPE_BYTES = {"float32": 4, "float64": 8, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
_LEFT_AS_THEY_WERE = (
    "modules_to_not_convert",
    "ignore",
    "ignored_layers",
    "llm_int8_skip_modules",
    "exclude_modules",
    "exclude",
    "skip_modules",
    "modules_to_not_quantize",
)
_SAMPLES = 64
"""Layers asked for at most, evenly spread: lists of modules may name every one of thousands."""

# Names that modules of a part have in published checkpoints, for layer {}.
_MODULES: Mapping[str, tuple[str, ...]] = {
    "attention": ("model.layers.{}.self_attn.q_proj", "model.layers.{}.self_attn.o_proj"),
    "feed_forward": (
        "model.layers.{}.mlp.gate_proj",
        "model.layers.{}.mlp.down_proj",
    ),
    "experts": (
        "model.layers.{}.mlp.experts.0.gate_proj",
        "model.layers.{}.mlp.experts.0.down_proj",
    ),
    "head": ("lm_head",),
    "vision": ("model.visual.blocks.{}.attn.proj", "model.vision_tower.encoder.layers.{}.mlp.fc1"),
    "audio": ("model.audio_tower.layers.{}.fc1",),
}
_SHARED_EXPERTS = ("model.layers.{}.mlp.shared_experts.down_proj",)


def method(config: Settings) -> str | None:
    """``awq``, ``gptq``, ``fp8``, ``mxfp4`` …; None for an unquantized model."""
    found = scheme(config)
    if not found:
        return None
    named = found.get("quant_method") or found.get("quant_algo") or "unknown"
    return str(named).lower().replace("compressed_tensors", "compressed-tensors")


def scheme(config: Settings) -> Settings:
    """The section that tells of quantization; empty for an unquantized model."""
    for part in (config, section(config, "text_config"), section(config, "llm_config")):
        for key in ("quantization_config", "compression_config"):
            if found := section(part, key):
                # ModelOpt's old notation has all of it one level deeper.
                inner = section(found, "quantization")
                return {"quant_method": "modelopt", **inner} if inner else found
    if found := section(config, "quantization"):  # as MLX writes it
        return {"quant_method": "mlx", **found}
    return {}


def with_file(config: Mapping[str, Any], file: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A config with what ModelOpt writes beside it, into hf_quant_config.json."""
    inner = section(file or {}, "quantization")
    if not inner or scheme(config):
        return config
    return {**config, "quantization_config": {"quant_method": "modelopt", **inner}}


def bits(config: Settings) -> int | None:
    """Bits of a weight in most modules; None for an unquantized model."""
    if not scheme(config):
        return None
    rate = _usual(config)("model.layers.0.mlp.experts.0.gate_proj")
    return 2 if rate < 0.3 else 3 if rate < 0.45 else 4 if rate < 0.8 else 8


def stored_bytes(weights: Weights, config: Settings, dtype: str, layers: int) -> int:
    """Bytes of weights as stored.

    Raises:
        CannotTellError: Its quantization method has no rule here.
    """
    wide = float(_DTYPE_BYTES.get(dtype, 2))
    if not scheme(config):
        return int(weights.total * wide)
    rate = _rates(config, wide)
    total = (weights.embedding + weights.other) * wide
    for part, names in _MODULES.items():
        elements = getattr(weights, part)
        if not elements:
            continue
        shared = _SHARED_EXPERTS if part == "feed_forward" and weights.experts else ()
        step = max(1, layers // _SAMPLES)
        asked = [
            name.format(i) for i in range(0, max(1, layers), step) for name in (*names, *shared)
        ]
        total += elements * sum(map(rate, asked)) / len(asked)
    return int(total)


def _rates(config: Settings, wide: float) -> Callable[[str], float]:
    """Module name → bytes of one of its weights."""
    found, usual = scheme(config), _usual(config)
    kept = _Matcher(_kept(found))
    quantized_head = found.get("lm_head") is True or "lm_head" in section(found, "quantized_layers")
    whole = method(config) in ("bitsandbytes", "hqq", "fp8", "torchao", "quanto", "eetq")

    def rate(name: str) -> float:
        if name == "lm_head" and not quantized_head:
            return wide
        # Towers are quantized by what walks over all modules alone.
        if kept(name) or (
            ("visual" in name or "tower" in name) and not (whole and not kept.listed)
        ):
            return wide
        return usual(name) or wide

    return rate


def _kept(found: Settings) -> list[str]:
    names: list[str] = []
    for key in _LEFT_AS_THEY_WERE:
        value = found.get(key)
        if isinstance(value, list | tuple):
            names += map(str, value)
    for pattern in section(found, "dynamic"):  # GPTQModel: "-:regex" leaves a module out
        if str(pattern).startswith("-:"):
            names.append("re:" + str(pattern)[2:])
    return names


class _Matcher:
    """Whether a module is one of those that patterns name: a regular expression after ``re:``, a
    shell pattern, or whole parts of a dotted name."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.listed = frozenset(patterns)
        self._expressions = [re.compile(p[3:]) for p in self.listed if p.startswith("re:")]
        plain = [p for p in self.listed if not p.startswith("re:")]
        # A module that is left out takes all below it along.
        below = [q for p in plain if "*" in p for q in (p, f"{p}.*")]
        self._shell = [re.compile(fnmatch.translate(p)) for p in below]
        self._parts = [f".{p.strip('.')}." for p in plain if "*" not in p]

    def __call__(self, name: str) -> bool:
        dotted = f".{name}."
        bare = name.removeprefix("model.")
        return any(part in dotted for part in self._parts) or any(
            e.match(name) or e.match(bare) for e in (*self._expressions, *self._shell)
        )


# ---------------------------------------------------------------------------- methods


def _usual(config: Settings) -> Callable[[str], float]:
    """What a module is stored in that is not left as it was; 0 for "as it was"."""
    named = str(method(config))
    found = scheme(config)
    if named == "compressed-tensors":
        return _compressed_tensors(found)
    if named.startswith("modelopt") and section(found, "quantized_layers"):
        return _modelopt_mixed(found)
    rule = _METHODS.get(named) or _METHODS.get(
        named.split("_", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1]
    )
    if rule is None:
        raise CannotTellError(tr("its quantization method {named!r} is not known", named=named))
    rate = rule(found)
    experts = found.get("expert_dtype") or config.get("expert_dtype")
    # DeepSeek-V4: experts in MXFP4 beside FP8 (configuration_deepseek_v4.py).
    of_experts = _MXFP4 if str(experts).lower() in ("fp4", "mxfp4") else rate
    alone = named == "mxfp4" and not _kept(found)  # OpenAI's release: the experts alone
    return lambda name: of_experts if ".experts." in name else 0.0 if alone else rate


_MXFP4 = 0.5 + 1 / 32
"""An E8M0 exponent for a block of 32 (OCP Microscaling 1.0)."""
_NVFP4 = 0.5 + 1 / 16
"""An FP8 scale for a block of 16 (NVIDIA ModelOpt)."""


def _grouped(found: Settings) -> float:
    """AWQ, GPTQ and their kin: a float16 scale and a packed zero point a group."""
    bits = number(found, "bits", "w_bit", "num_bits", default=4) or 4
    group = found.get("group_size", found.get("q_group_size", 128))
    extra = (2 + bits / 8) / group if isinstance(group, int) and group > 0 else 0.0
    return bits / 8 + extra


def _fp8(found: Settings) -> float:
    """A byte, and a float32 scale for each block where there are blocks (DeepSeek-V3)."""
    block = found.get("weight_block_size")
    if isinstance(block, list) and len(block) == 2 and all(block):
        return 1 + 4 / (int(block[0]) * int(block[1]))
    return 1.0


def _bitsandbytes(found: Settings) -> float:
    """NF4 in blocks of 64 (arXiv 2305.14314): a float32 scale each, a byte when quantized twice."""
    if found.get("load_in_8bit") or found.get("_load_in_8bit"):
        return 1.0
    twice = found.get("bnb_4bit_use_double_quant")
    return 0.5 + ((1 + 4 / 256) / 64 if twice else 4 / 64)


def _hqq(found: Settings) -> float:
    """A scale and a zero point in half precision a group (HQQ's ``weight_quant_params``)."""
    inner = section(section(found, "quant_config"), "weight_quant_params")
    if not inner:
        # By module: the first one's stand for all.
        first = next(
            (v for v in section(found, "quant_config").values() if isinstance(v, Mapping)), {}
        )
        inner = section(first, "weight_quant_params") or found
    bits = number(inner, "nbits", "bits", default=4)
    group = number(inner, "group_size", default=64) or 64
    return bits / 8 + 4 / group


def _modelopt(found: Settings) -> float:
    return _algorithm(str(found.get("quant_algo", "FP8")))


def _algorithm(name: str) -> float:
    upper = name.upper()
    known = {"NVFP4": _NVFP4, "MXFP4": _MXFP4, "FP8": 1.0, "MXFP8": 1 + 1 / 32, "INT8": 1.0,
             "W8A8": 1.0, "INT4": 0.5 + 2 / 128, "W4A16": 0.5 + 2 / 128, "W4A8": 0.5 + 2 / 128,
             "NVFP4_AWQ": _NVFP4, "W4A16_NVFP4": _NVFP4, "W4A8_NVFP4": _NVFP4}  # fmt: skip
    for key in sorted(known, key=len, reverse=True):
        if upper.startswith(key):
            return known[key]
    raise CannotTellError(tr("its quantization {name!r} is not known", name=name))


def _modelopt_mixed(found: Settings) -> Callable[[str], float]:
    """ModelOpt's ``MIXED_PRECISION``: an algorithm a module; what is not listed stays as it was."""
    listed = section(found, "quantized_layers")
    rates: dict[str, float] = {}
    for name, value in listed.items():
        algorithm = value.get("quant_algo") if isinstance(value, Mapping) else value
        rates[name.removeprefix("model.")] = _algorithm(str(algorithm))
    parts = {_part(name): rate for name, rate in rates.items()}

    def rate(name: str) -> float:
        bare = name.removeprefix("model.")
        return rates.get(bare, parts.get(_part(bare), 0.0))

    return rate


def _part(name: str) -> str:
    if ".experts." in f"{name}.":  # all of a layer's at once, or one of them
        return "experts"
    if "attn" in name or "mixer" in name:
        return "attention"
    return "feed_forward" if ".mlp." in name or "feed_forward" in name else name


def _compressed_tensors(found: Settings) -> Callable[[str], float]:
    """Groups of modules with a type each; ``Linear`` stands for all that no other group names
    (vllm/model_executor/layers/quantization/compressed_tensors)."""
    groups: list[tuple[_Matcher, bool, float]] = []
    for group in section(found, "config_groups").values():
        if not isinstance(group, Mapping):
            continue
        weights = section(group, "weights")
        targets = [str(target) for target in group.get("targets") or ["Linear"]]
        stored = str(group.get("format") or found.get("format") or "")
        bytes_each = _compressed_rate(weights, stored) if weights else 0.0
        groups.append((_Matcher(targets), "Linear" in targets, bytes_each))

    def rate(name: str) -> float:
        for matches, _, bytes_each in groups:
            if matches(name):
                return bytes_each
        return next((bytes_each for _, all_of_them, bytes_each in groups if all_of_them), 0.0)

    return rate


def _compressed_rate(weights: Settings, stored: str) -> float:
    bits = number(weights, "num_bits", default=8)
    group = number(weights, "group_size")
    if weights.get("type") == "float" and bits == 4:
        return _MXFP4 if "mxfp4" in stored or group == 32 else _NVFP4
    block = weights.get("block_structure")
    if isinstance(block, list) and len(block) == 2:
        return bits / 8 + 2 / (int(block[0]) * int(block[1]))
    zero = 0 if weights.get("symmetric", True) else bits / 8
    return bits / 8 + ((2 + zero) / group if group else 0.0)


def _torchao(found: Settings) -> float:
    named = str(found.get("quant_type", "")).lower()
    if "int4" in named or "uintx" in named:
        return 0.5 + 4 / 128
    if "8" in named:
        return 1.0
    raise CannotTellError(tr("its torchao quantization {named!r} is not known", named=named[:60]))


def _quark(found: Settings) -> float:
    weights = section(section(found, "global_quant_config"), "weight")
    named = str(weights.get("dtype", "")).lower()
    if named.startswith(("fp4", "mx")):
        return _MXFP4
    if named.startswith("int4"):
        return 0.5 + 2 / (number(weights, "group_size") or 128)
    if "8" in named:
        return 1.0
    raise CannotTellError(tr("its quark quantization {named!r} is not known", named=named))


def _aqlm(found: Settings) -> float:
    """Additive codebooks (arXiv 2401.06118)."""
    code = number(found, "nbits_per_codebook") * number(found, "num_codebooks", default=1)
    return (
        code
        / 8
        / max(
            1,
            number(found, "in_group_size", default=8) * number(found, "out_group_size", default=1),
        )
    )


def _fixed(rate: float) -> Callable[[Settings], float]:
    return lambda _: rate


_METHODS: Mapping[str, Callable[[Settings], float]] = {
    **dict.fromkeys(("awq", "gptq", "auto-round", "intel", "awq_marlin", "gptq_marlin", "marlin"), _grouped),
    **dict.fromkeys(("fp8", "fbgemm_fp8", "w8a8_fp8"), _fp8),
    **dict.fromkeys(("modelopt", "modelopt_fp4", "nvfp4"), _modelopt),
    "mxfp4": _fixed(_MXFP4),
    "bitsandbytes": _bitsandbytes,
    "hqq": _hqq,
    "eetq": _fixed(1.0),
    "fp_quant": _fixed(_NVFP4),
    "bitnet": _fixed(0.25),
    "torchao": _torchao,
    "quark": _quark,
    "aqlm": _aqlm,
}  # fmt: skip
"""Method → bytes of one weight with its share of scales and zero points."""

"""Which layer is of which type: what its mixer is called, and whether its feed-forward part is dense
or a mixture of experts. Configs say so in many ways; every function here reads one of them and gives
None where the config does not use it.
"""

from __future__ import annotations

from collections.abc import Callable

from yibu.messages import tr
from yibu.planner.hf.settings import CannotTellError, Settings, number, numbers, section, setting

Pattern = Callable[[Settings, int], list[str] | None]


# ---------------------------------------------------------------------------- mixers


def layer_types(settings: Settings, layers: int) -> list[str] | None:
    """transformers' ``layer_types`` (configuration_utils.py), Jamba's and Nemotron-H's
    ``layers_block_type``, Griffin's ``block_types``: names, repeated where they are a cycle."""
    for key in (
        "layer_types",
        "layers_block_type",
        "_block_types",
        "block_types",
        "layer_type_list",
    ):
        names = settings.get(key)
        if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
            if "block_types" in key:
                return [names[i % len(names)] for i in range(layers)]
            if len(names) < layers:
                raise CannotTellError(
                    tr(
                        "its {key} tell of {names_count} of its {layers} layers",
                        key=key,
                        names_count=len(names),
                        layers=layers,
                    )
                )
            return list(names[:layers])
    return None


def block_letters(settings: Settings, layers: int) -> list[str] | None:
    """Nemotron-H's ``hybrid_override_pattern``: M Mamba 2, * attention, - feed-forward, E experts."""
    pattern = settings.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or not pattern:
        return None
    names = {"M": "mamba2", "*": "attention", "-": "none", "E": "none", "|": ""}
    if unknown := set(pattern) - set(names):
        raise CannotTellError(
            tr("its layer pattern has the letter {unknown!r}", unknown=min(unknown))
        )
    found = [name for letter in pattern if (name := names[letter])]
    return found[:layers]


def full_indices(settings: Settings, layers: int) -> list[str] | None:
    """LFM2's ``full_attn_idxs``: the layers with attention; the others have a convolution."""
    if not isinstance(settings.get("full_attn_idxs"), list):
        return None
    full = set(numbers(settings, "full_attn_idxs"))
    return ["full_attention" if i in full else "conv" for i in range(layers)]


def attention_list(settings: Settings, layers: int) -> list[str] | None:
    """MiniMax-Text-01's and MiniMax-M1's ``attn_type_list``: 1 full attention, 0 linear."""
    kinds = numbers(settings, "attn_type_list")
    if not kinds:
        return None
    return ["full_attention" if kind else "linear_attention" for kind in kinds[:layers]]


def kimi_lists(settings: Settings, layers: int) -> list[str] | None:
    """Kimi-Linear's ``linear_attn_config``: layers counted from 1."""
    linear = section(settings, "linear_attn_config")
    if "kda_layers" not in linear and "full_attn_layers" not in linear:
        return None
    full = set(numbers(linear, "full_attn_layers"))
    return ["full_attention" if i + 1 in full else "linear_attention" for i in range(layers)]


def hybrid_layers(settings: Settings, layers: int) -> list[str] | None:
    """MiMo-V2's ``hybrid_layer_pattern``: 1 a window, 0 all tokens."""
    kinds = numbers(settings, "hybrid_layer_pattern")
    if not kinds:
        return None
    return ["sliding_attention" if kind else "full_attention" for kind in kinds[:layers]]


def linear_interval(settings: Settings, layers: int) -> list[str] | None:
    """Every n-th layer has attention, the others a state: Qwen3-Next's ``full_attention_interval``,
    Bailing's ``layer_group_size``."""
    interval = number(settings, "full_attention_interval", "layer_group_size")
    if not interval:
        return None
    return ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)]


def jamba_period(settings: Settings, layers: int) -> list[str] | None:
    """Jamba: attention in one layer of a period (configuration_jamba.py)."""
    period = number(settings, "attn_layer_period")
    if not period:
        return None
    offset = number(settings, "attn_layer_offset")
    return ["attention" if i % period == offset else "mamba" for i in range(layers)]


def attention_indices(settings: Settings, layers: int) -> list[str] | None:
    """Bamba's ``attn_layer_indices``: these have attention, the others Mamba 2."""
    if not isinstance(settings.get("attn_layer_indices"), list):
        return None
    full = set(numbers(settings, "attn_layer_indices"))
    return ["attention" if i in full else "mamba" for i in range(layers)]


def window_letters(settings: Settings, layers: int) -> list[str] | None:
    """EXAONE 4's ``sliding_window_pattern: LLLG``: L local, G global."""
    pattern = settings.get("sliding_window_pattern")
    if not isinstance(pattern, str) or not pattern or set(pattern) - set("LG"):
        return None
    names = {"L": "sliding_attention", "G": "full_attention"}
    found = [names[pattern[i % len(pattern)]] for i in range(layers)]
    if settings.get("model_type") == "exaone4" and found:
        found[-1] = "full_attention"
    return found


def window_interval(settings: Settings, layers: int) -> list[str] | None:
    """Every n-th layer sees all tokens, the others a window (Gemma 2 and 3, Cohere 2, gpt-oss)."""
    every = number(settings, "sliding_window_pattern", "_sliding_window_pattern")
    every = every or number(settings, "global_attn_every_n_layers")
    if not every:
        return None
    return ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(layers)]


def window_from(settings: Settings, layers: int) -> list[str] | None:
    """Qwen2's ``max_window_layers``: a window from that layer on (configuration_qwen2.py)."""
    if "max_window_layers" not in settings:
        return None
    first = number(settings, "max_window_layers")
    windowed = settings.get("use_sliding_window") and number(settings, "sliding_window")
    return [
        "sliding_attention" if windowed and i >= first else "full_attention" for i in range(layers)
    ]


def windows_everywhere(settings: Settings, layers: int) -> list[str] | None:
    """Mistral 7B v0.1, Phi-3: one window for all layers."""
    if not number(settings, "sliding_window"):
        return None
    return ["sliding_attention"] * layers


def all_full(settings: Settings, layers: int) -> list[str] | None:
    return ["full_attention"] * layers


def llama4(settings: Settings, layers: int) -> list[str] | None:
    """Llama 4: layers without rotary positions see all tokens, the others their chunk. A list has
    1 where positions are used (configuration_llama4.py)."""
    rotary = numbers(settings, "no_rope_layers")
    if not rotary:
        every = number(settings, "no_rope_layer_interval", default=4)
        rotary = [(i + 1) % every for i in range(layers)]
    return ["chunked_attention" if kind else "full_attention" for kind in rotary[:layers]]


def usual(settings: Settings, layers: int) -> list[str]:
    """The first way that the config uses."""
    for read in _USUAL:
        if (found := read(settings, layers)) is not None:
            if len(found) < layers:
                raise CannotTellError(
                    tr(
                        "its config.json tells the types of {found_count} of its {layers} layers",
                        found_count=len(found),
                        layers=layers,
                    )
                )
            return found
    raise AssertionError("all_full reads every config")


def listed(settings: Settings, layers: int) -> list[str]:
    """… for types whose configs have to list their layers."""
    for read in (layer_types, kimi_lists, hybrid_layers):
        if (found := read(settings, layers)) is not None:
            return found
    raise CannotTellError(tr("its config.json has no layer_types"))


_USUAL: tuple[Pattern, ...] = (
    layer_types,
    block_letters,
    full_indices,
    attention_list,
    kimi_lists,
    hybrid_layers,
    linear_interval,
    jamba_period,
    attention_indices,
    window_letters,
    window_interval,
    window_from,
    windows_everywhere,
    all_full,
)


# ---------------------------------------------------------------------------- feed-forward


def sparse_layers(settings: Settings, layers: int) -> list[bool]:
    """True for layers whose feed-forward part is a mixture of experts."""
    if not setting(settings, "experts"):
        return [False] * layers
    for read in _SPARSE:
        if (found := read(settings, layers)) is not None:
            return (found + found[-1:] * layers)[:layers]
    return [True] * layers


def _named_sparse(settings: Settings, layers: int) -> list[bool] | None:
    """``mlp_layer_types``: dense or sparse (GLM 4.5 and later, DeepSeek-V4's hash_moe)."""
    names = settings.get("mlp_layer_types")
    return [name != "dense" for name in names] if isinstance(names, list) and names else None


def _block_sparse(settings: Settings, layers: int) -> list[bool] | None:
    """Nemotron-H: experts are layers of their own, E in the pattern."""
    pattern = settings.get("hybrid_override_pattern")
    return [letter == "E" for letter in pattern] if isinstance(pattern, str) and pattern else None


def _listed_sparse(settings: Settings, layers: int) -> list[bool] | None:
    """A list of the sparse layers: Llama 4's ``moe_layers``, Step 3's ``moe_layers_enum``."""
    listed = settings.get("moe_layers_enum", settings.get("moe_layers"))
    if isinstance(listed, str):
        listed = [int(part) for part in listed.split(",") if part.strip().isdigit()]
    if not isinstance(listed, list) or not listed:
        return None
    chosen = set(listed)
    return [i in chosen for i in range(layers)]


def _frequency_list(settings: Settings, layers: int) -> list[bool] | None:
    """``moe_layer_freq`` as a list: 1 for sparse (MiMo-V2, MiniMax)."""
    kinds = numbers(settings, "moe_layer_freq")
    return [bool(kind) for kind in kinds] or None


def _period(settings: Settings, layers: int) -> list[bool] | None:
    """Jamba: ``expert_layer_period`` and its offset."""
    period = number(settings, "expert_layer_period")
    if not period:
        return None
    offset = number(settings, "expert_layer_offset")
    return [i % period == offset for i in range(layers)]


def _llama4_step(settings: Settings, layers: int) -> list[bool] | None:
    step = number(settings, "interleave_moe_layer_step", "moe_layer_frequency")
    return [(i + 1) % step == 0 for i in range(layers)] if step else None


def _every_nth(settings: Settings, layers: int) -> list[bool] | None:
    """Nomic Embed v2: ``moe_every_n_layers``."""
    step = number(settings, "moe_every_n_layers")
    return [i % step == 1 % step for i in range(layers)] if step else None


def _ernie_range(settings: Settings, layers: int) -> list[bool] | None:
    """ERNIE 4.5: ``moe_layer_start_index`` to ``…_end_index``, every ``moe_layer_interval``."""
    if "moe_layer_start_index" not in settings:
        return None
    first, last = settings["moe_layer_start_index"], settings.get("moe_layer_end_index", -1)
    # The VL models have one entry for text experts and one for vision experts.
    first = min(first) if isinstance(first, list) else first
    last = max(last) if isinstance(last, list) else last
    last = layers - 1 if last is None or last < 0 else last
    step = number(settings, "moe_layer_interval", default=1)
    return [(i + 1) % step == 0 and first <= i <= last for i in range(layers)]


def _first_dense(settings: Settings, layers: int) -> list[bool] | None:
    """DeepSeek's ``first_k_dense_replace``, LFM2's and AFMoE's ``num_dense_layers``, Qwen2-MoE's
    ``decoder_sparse_step`` and ``mlp_only_layers``."""
    keys = ("first_k_dense_replace", "num_dense_layers", "moe_first_k_dense_replace")
    first = number(settings, *keys)
    step = max(1, number(settings, "decoder_sparse_step", default=1))
    every = max(1, number(settings, "moe_layer_freq", "moe_layer_interval", default=1))
    only = set(numbers(settings, "mlp_only_layers"))
    return [
        i >= first and i not in only and (i + 1) % step == 0 and i % every == 0
        for i in range(layers)
    ]


_SPARSE: tuple[Callable[[Settings, int], list[bool] | None], ...] = (
    _named_sparse,
    _block_sparse,
    _listed_sparse,
    _frequency_list,
    _period,
    _llama4_step,
    _every_nth,
    _ernie_range,
    _first_dense,
)

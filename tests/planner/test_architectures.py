"""Well-known models on well-known machines, with verdicts worked out by hand.

All sizes in the comments are GiB. Room on one GPU is what its driver reports less 2 % (at least
0.25): RTX 3070 7.75, RTX 4090 23.51, A100 78.40, H100 78.06, H200 137.59.

Weights are parameters × bytes (half precision unless said), cache is 2 × layers × key/value heads
× head width × 2 bytes a token. O is the overhead: 0.5 (1.0 on several GPUs) for the runtime,
10 MiB a layer for graphs, 256 × vocabulary × 12 bytes for logits, and activations of 2,048 tokens.
On several GPUs weights and cache are divided by their number, and 1 % is added to the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from models import GIB, ROWS, facts_of

from yibu.planner.arithmetic import kv_bytes_per_token, loaded_weights
from yibu.planner.hf.model import describe
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import plan
from yibu.planner.request import Request


@dataclass(frozen=True)
class Fits:
    tensor_parallel: int = 1


@dataclass(frozen=True)
class Reduced:
    """Fits with a context between two bounds, taken 3 % around the hand's result."""

    tensor_parallel: int
    context: int


NO = "does_not_fit"
Expected = Fits | Reduced | str


@dataclass(frozen=True)
class Case:
    model: str
    weights: float
    """GiB once loaded."""
    cache: int
    """Bytes a token beyond all windows, on one GPU."""
    on: dict[str, Expected]


CASES = [
    # 134.5 M × 2 = 0.25; 2×30×3×64×2 = 23,040. 0.25 + O 0.95 + 8,192 tokens 0.18 = 1.4 < 7.75
    Case("SmolLM2-135M", 0.25, 23_040, {"rtx3070-8g": Fits(), "8x80g": Fits()}),
    # 2×28×2×128×2 = 28,672, × 131,072 = 3.50. 2.88 + O 1.30 + 3.50 = 7.68 < 7.75
    Case("Qwen2.5-1.5B", 2.88, 28_672, {"rtx3070-8g": Fits(), "rtx4090-24g": Fits()}),
    # The same with an output matrix of its own: 3.31 + 1.30 + 3.50 = 8.11 > 7.75, so
    # (7.75 − 3.31 − 1.30 = 3.14) ÷ 28,672 = 117,600 tokens
    Case(
        "DeepSeek-R1-Distill-Qwen-1.5B",
        3.31,
        28_672,
        {"rtx3070-8g": Reduced(1, 117_600), "rtx4090-24g": Fits()},
    ),
    # 2×28×4×128×2 = 57,344, × 131,072 = 7.00. 14.19 + O 1.41 + 7.00 = 22.60 < 23.51
    Case("Qwen2.5-7B", 14.19, 57_344, {"rtx3070-8g": NO, "rtx4090-24g": Fits()}),
    # 2×80×8×128×2 = 327,680, × 32,768 = 10.0. One A100: 135 > 78. Two: 135.43/2 × 1.01 = 68.4,
    # + O 2.5 + 5.0 = 75.9 < 78.40
    Case("Qwen2.5-72B", 135.43, 327_680, {"2x24g": NO, "1x80g": NO, "4x80g": Fits(2)}),
    # 70.2 G linear weights × (4 bits + 20/128 for scales and zeros) + 2.5 G of embeddings × 2
    # = 38.62. One RTX 4090: no. Two: 19.50 + O 2.39 = 21.89, (23.51 − 21.89 = 1.62) ÷ 163,840
    # = 10,600; A100: 38.6 + 2.1 + 10.0 = 50.7
    Case(
        "Qwen2.5-72B-AWQ",
        38.62,
        327_680,
        {"rtx4090-24g": NO, "2x24g": Reduced(2, 10_200), "1x80g": Fits()},
    ),
    # 2×28×8×128×2 = 114,688, × 40,960 = 4.38. 1.11 + O 1.25 + 4.38 = 6.74 < 7.75
    Case("Qwen3-0.6B", 1.11, 114_688, {"rtx3070-8g": Fits()}),
    # 2×36×8×128×2 = 147,456, × 40,960 = 5.63. 15.26 + O 1.44 + 5.63 = 22.33 < 23.51
    Case("Qwen3-8B", 15.26, 147_456, {"rtx3070-8g": NO, "rtx4090-24g": Fits()}),
    # 2×48×4×128×2 = 98,304, × 40,960 = 3.75. Two RTX 4090: 56.87/2 = 28.4 > 23.51.
    # A100: 56.87 + O 1.48 + 3.75 = 62.1
    Case("Qwen3-30B-A3B", 56.87, 98_304, {"2x24g": NO, "1x80g": Fits()}),
    # 2×94×4×128×2 = 192,512. Four A100: 437.9/4 = 109 > 78. Eight H100: 55.3, + O 2.5, + one head
    # of cache a GPU (4 heads on 8 GPUs are copied) 48,128 × 40,960 = 1.84, = 59.6 < 78.06.
    # Four H200: 110.6 + 2.5 + 1.84 = 115 < 137.59; three do not divide 64 heads; two: 221
    Case(
        "Qwen3-235B-A22B",
        437.90,
        192_512,
        {"4x80g": NO, "8x80g": Fits(8), "8x141g": Fits(4)},
    ),
    # 2×32×8×128×2 = 131,072, × 131,072 = 16.0. RTX 4090: 23.51 − 14.96 − O 1.35 = 7.20
    # ÷ 131,072 = 58,980. Two: 7.55 + 1.7 + 8.0 = 17.3
    Case(
        "Llama-3.1-8B",
        14.96,
        131_072,
        {"rtx3070-8g": NO, "rtx4090-24g": Reduced(1, 58_900), "2x24g": Fits(2), "1x80g": Fits()},
    ),
    # × 131,072 tokens = 40.0. Two A100: 66.4 + 2.4 + 20 = 88.8 > 78.4 (a shorter context would
    # do), three do not divide the heads, four: 33.2 + 2.4 + 10 = 45.6. Two H200: 88.8 < 137.59
    Case(
        "Llama-3.1-70B",
        131.42,
        327_680,
        {"1x80g": NO, "4x80g": Fits(4), "8x80g": Fits(4), "8x141g": Fits(2)},
    ),
    # 755.96/8 × 1.01 = 95.4 > 78.06; H200: 95.4 + O 3.2 + 516,096/8 × 131,072 = 7.9 → 106.5
    Case("Llama-3.1-405B", 755.96, 516_096, {"8x80g": NO, "8x141g": Fits(8)}),
    # A window in all layers: nothing grows without end. (4,096 + 2,048) × 131,072 = 0.75.
    # 13.49 + O 1.08 + 0.75 = 15.3
    Case("Mistral-7B-v0.1", 13.49, 0, {"rtx3070-8g": NO, "rtx4090-24g": Fits()}),
    # 86.99 > 78.4; two A100: 43.9 + 1.6 + 131,072/2 × 32,768 = 2.0 → 47.5; one H200: 92
    Case(
        "Mixtral-8x7B",
        86.99,
        131_072,
        {"2x24g": NO, "1x80g": NO, "4x80g": Fits(2), "8x141g": Fits()},
    ),
    # Stored in f32 (34.43), loaded in half precision: 17.21. 21 full layers: 2×21×8×256×2
    # = 172,032, × 8,192 = 1.31; 21 windows × 6,144 = 0.98. 17.21 + O 1.81 + 2.29 = 21.3
    Case("Gemma-2-9B", 17.21, 172_032, {"rtx3070-8g": NO, "rtx4090-24g": Fits()}),
    # 10 full layers of 62: 2×10×16×128×2 = 81,920, × 131,072 = 10.0; 52 windows of 1,024 (+ 2,048)
    # 425,984 × 3,072 = 1.22. A100: 50.31 + O 2.1 + 11.2 = 63.6. Two RTX 4090: 25.4 > 23.51
    Case("Gemma-3-27B-text", 50.31, 81_920, {"2x24g": NO, "1x80g": Fits()}),
    # No grouping: 2×32×32×96×2 = 393,216 in windows of 2,047: × 4,095 = 1.50.
    # 7.12 + O 1.01 + 1.5 = 9.6
    Case("Phi-3-mini-4k", 7.12, 0, {"rtx3070-8g": NO, "rtx4090-24g": Fits()}),
    # 2×40×10×128×2 = 204,800, × 16,384 = 3.13. Two RTX 4090: 13.8 + 1.7 + 1.6 = 17.1
    Case("Phi-4", 27.31, 204_800, {"rtx4090-24g": NO, "2x24g": Fits(2), "1x80g": Fits()}),
    # Two groups: 2×40×2×128×2 = 40,960, × 131,072 = 5.0. 17.51 + O 1.49 + 5.0 = 24.0 > 23.51;
    # 4.51 ÷ 40,960 = 118,200
    Case(
        "GLM-4-9B",
        17.51,
        40_960,
        {"rtx4090-24g": Reduced(1, 118_100), "2x24g": Fits(2), "1x80g": Fits()},
    ),
    # fp8, and a float32 scale for each 128 × 128. 61 layers keep (512 + 64) × 2 = 70,272 a token, whole on every GPU: × 163,840 = 10.7.
    # Eight H100: 79.1 > 78.06. H200: 79.1 + O 2.2 + 10.7 = 92
    Case("DeepSeek-V3", 626.92, 70_272, {"4x80g": NO, "8x80g": NO, "8x141g": Fits(8)}),
    # 19.1 G of expert weights × 4.25 bits + 1.8 G × 2 = 12.82 (the release's files: 13.76 GB).
    # 12 full layers: 2×12×8×64×2 = 24,576, × 131,072 = 3.0. 12.82 + O 1.38 + 3.05 = 17.3
    Case("gpt-oss-20b", 12.82, 24_576, {"rtx3070-8g": NO, "rtx4090-24g": Fits()}),
    # 114.7 G × 4.25 bits + 2.2 G × 2 = 60.77. 36,864 × 131,072 = 4.5. A100: 66.8; two 4090: 30.7
    Case("gpt-oss-120b", 60.77, 36_864, {"2x24g": NO, "1x80g": Fits()}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model)
def test_parameters_counted_from_a_config_are_the_published_ones(case: Case) -> None:
    (row,) = (row for row in ROWS if row["name"] == case.model)
    # The published counts have the experts' balancing biases and the sinks, a millionth of all.
    assert describe(row["config"]).weights.total == pytest.approx(row["parameters"], rel=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model)
def test_weights_and_cache(case: Case) -> None:
    facts = facts_of(case.model)
    assert loaded_weights(facts, None) / GIB == pytest.approx(case.weights, abs=0.01)
    assert kv_bytes_per_token(facts) == case.cache
    assert facts.estimated


@pytest.mark.parametrize(
    ("name", "machine", "expected"),
    [(case.model, machine, expected) for case in CASES for machine, expected in case.on.items()],
)
def test_verdicts(name: str, machine: str, expected: Expected) -> None:
    (result,) = plan([Request(name, "paged", facts_of(name))], BUILT_IN[machine])
    assert result.reasons
    if expected == NO:
        assert result.verdict == NO
        assert result.placement is None
        assert result.suggestions
        return
    placement = result.placement
    assert isinstance(expected, Fits | Reduced)
    assert placement.tensor_parallel == expected.tensor_parallel == len(placement.gpus)
    if isinstance(expected, Fits):
        assert result.verdict == "fits"
        assert placement.context == facts_of(name).max_context
    else:
        assert result.verdict == "fits_reduced"
        assert placement.context == pytest.approx(expected.context, rel=0.03)
        assert any(f"{placement.context:,}" in reason for reason in result.reasons)


def test_linear_attention_keeps_a_state_and_few_keys() -> None:
    # Qwen3.5: of 40 layers 10 see all tokens: 2×10×2×256×2 = 20,480 bytes a token. The others
    # keep 32×128×128 for the state and (2×16×128 + 32×128) × 3 for the convolution, in f32.
    facts = facts_of("Qwen3.5-35B")
    assert kv_bytes_per_token(facts) == 20_480
    from yibu.planner.arithmetic import kv_bytes

    state = 30 * (32 * 128 * 128 + (2 * 16 * 128 + 32 * 128) * 3) * 4
    assert kv_bytes(facts, 1000, 1) == 20_480 * 1000 + state


def test_the_kv_dtype_halves_the_cache() -> None:
    facts = facts_of("Llama-3.1-8B")
    assert kv_bytes_per_token(facts, "fp8") == 65_536
    request = Request("m", "paged", facts, kv_dtype="fp8")
    (result,) = plan([request], BUILT_IN["rtx4090-24g"])
    # 7.20 GiB ÷ 64 KiB = 117,960 tokens.
    assert result.placement.context == pytest.approx(117_900, rel=0.03)


def test_latent_attention_is_not_divided() -> None:
    facts = facts_of("DeepSeek-V3")
    assert kv_bytes_per_token(facts, tp=8) == kv_bytes_per_token(facts, tp=1)
    assert kv_bytes_per_token(facts_of("Qwen2.5-72B"), tp=8) == 327_680 // 8
    # Four heads on eight GPUs: a copy of one each.
    assert kv_bytes_per_token(facts_of("Qwen3-235B-A22B"), tp=8) == 192_512 // 4

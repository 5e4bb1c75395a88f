"""The GGUF header: what it says, and what damaged or malicious ones get."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_files import LLAMA, gguf_bytes, gguf_string

from yibu.errors import UnsupportedError, VerificationError, YibuError
from yibu.planner.facts import facts_from_headers
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.weights import gguf

Q4_0, F32 = 2, 0


def test_reads_metadata_and_tensors() -> None:
    tensors = [("a", (64, 32), Q4_0, 0), ("b", (64,), F32, 1152)]
    header = gguf.parse(gguf_bytes(LLAMA, tensors))
    assert header.metadata["llama.context_length"] == 4096
    # 64 × 32 elements in blocks of 32 of 18 bytes, and 64 floats.
    assert [tensor.size for tensor in header.tensors] == [64 * 32 // 32 * 18, 256]
    assert header.weight_bytes == 1152 + 256
    assert header.parameters == 2048 + 64
    assert header.file_bytes == header.data_start + 1152 + 256
    assert header.data_start % 32 == 0
    assert header.quantization == "Q4_0"


def test_quantization_falls_back_to_the_main_tensor_type() -> None:
    metadata = {k: v for k, v in LLAMA.items() if k != "general.file_type"}
    header = gguf.parse(gguf_bytes(metadata, [("a", (256, 8), 14, 0), ("b", (8,), F32, 0)]))
    assert header.quantization == "Q6_K"


def test_long_arrays_are_counted_not_kept() -> None:
    tokens = [f"t{i}" for i in range(5000)]
    header = gguf.parse(gguf_bytes({**LLAMA, "tokens": tokens, "types": [1] * 5000}))
    assert header.metadata["tokens"] == gguf.ArrayLength(5000)
    assert header.metadata["types"] == gguf.ArrayLength(5000)


def test_version_2_is_read_and_others_are_refused() -> None:
    assert gguf.parse(gguf_bytes(LLAMA, version=2)).version == 2
    with pytest.raises(UnsupportedError, match="version 1"):
        gguf.parse(gguf_bytes(LLAMA, version=1))


def test_not_a_gguf() -> None:
    with pytest.raises(UnsupportedError, match="begins with b'PK"):
        gguf.parse(b"PK\x03\x04" + b"\0" * 60, "x.gguf")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0), "claims 4611686018427387904 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "metadata entries"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 60), "goes on beyond"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_string("k") + struct.pack("<I", 99),
            "value type 99",
        ),
        (
            # An array that claims 2⁶⁰ strings and holds none.
            b"GGUF"
            + struct.pack("<IQQ", 3, 0, 1)
            + gguf_string("k")
            + struct.pack("<IIQ", 9, 8, 1 << 60),
            "goes on beyond",
        ),
        (
            # Arrays within arrays within arrays.
            b"GGUF"
            + struct.pack("<IQQ", 3, 0, 1)
            + gguf_string("k")
            + struct.pack("<I", 9)
            + struct.pack("<IQ", 9, 1) * 3,
            "nested",
        ),
        (gguf_bytes(LLAMA, [("a", (33,), Q4_0, 0)]), "no multiple"),
    ],
)
def test_malicious_headers_are_refused_without_allocating(raw: bytes, words: str) -> None:
    with pytest.raises(VerificationError, match=words):
        gguf.parse(raw, "x.gguf")


def test_unknown_tensor_type_is_unsupported_not_damaged() -> None:
    with pytest.raises(UnsupportedError, match="type 77"):
        gguf.parse(gguf_bytes(LLAMA, [("a", (32,), 77, 0)]))


@given(st.integers(min_value=0, max_value=400))
def test_a_prefix_says_how_much_more_is_needed(cut: int) -> None:
    whole = gguf_bytes({**LLAMA, "tokens": ["x"] * 20}, [("a", (64, 32), Q4_0, 0)])
    if cut >= len(whole) - 32:
        return
    with pytest.raises(gguf.HeaderCutShortError) as caught:
        gguf.parse(whole[:cut])
    assert cut < caught.value.needed <= len(whole)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_header_or_a_typed_error(raw: bytes) -> None:
    # Any other exception fails the test.
    with contextlib.suppress(YibuError):
        gguf.parse(b"GGUF\x03\0\0\0" + raw)


def test_a_header_that_does_not_say_what_is_kept() -> None:
    metadata = {key: value for key, value in LLAMA.items() if "head_count" not in key}
    prefix = gguf_bytes(metadata, [("a", (64, 32), 2, 0)], data=1152)
    facts = facts_from_headers(name="m", gguf_prefix=prefix)
    assert "llama.attention.head_count" in facts.unknown
    (result,) = plan([Request("m", "llama.cpp", facts)], BUILT_IN["laptop-16g"])
    assert result.verdict == "cannot_tell"


def test_experts_of_a_gguf_that_a_token_does_not_use() -> None:
    metadata = {**LLAMA, "llama.expert_count": 8, "llama.expert_used_count": 2}
    tensors = [("blk.0.ffn_up_exps.weight", (32, 64, 8), 0, 0), ("a", (64, 32), 0, 65_536)]
    facts = facts_from_headers(name="m", gguf_prefix=gguf_bytes(metadata, tensors, data=73_728))
    assert (facts.parameters, facts.active_parameters) == (18_432, 18_432 - 16_384 * 6 // 8)

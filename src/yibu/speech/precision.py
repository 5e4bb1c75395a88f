"""Chooses the arithmetic by the processor's features, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yibu.errors import UnsupportedError
from yibu.messages import tr

INT8_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni"})
"""Instructions without any of which int8 is no faster than fp32 in OpenVINO."""


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """A precision, and why."""

    precision: str
    reason: str


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's features and its maker (``GenuineIntel``, ``AuthenticAMD``) as Linux names
    them; empty where it does not say."""
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found: set[str] = set()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("vendor_id", "flags", "Features"):
            found |= set(value.split())
        if not line and found:
            break  # the other processors are like the first
    return frozenset(found)


def choose(
    precision: str, device: str, flags: frozenset[str], *, files: frozenset[str]
) -> PrecisionChoice:
    """Resolve ``precision`` (``auto``, ``fp32``, ``bf16``, ``int8``) for SenseVoice.

    ``auto`` takes what is fastest on the processor among those that keep the test model's
    text, which all three do. Measured on Zen 4, int8 is 2.5 times as fast as fp32 and 1.4
    times as fast as bf16; its weights have a scale a row, and its activations one a group of
    128, found anew each time, so no calibration is needed. ``flags`` are those of
    ``cpu_flags``. bf16 is faster than fp32 on AMX and on AMD's AVX512-BF16; Intel's has the rate
    of fp32 and the conversions on top (1.7 times slower, measured on a Xeon). int8 without
    ``INT8_PRODUCTS`` takes 1.1 to 1.2 times as long as fp32, for half its memory or less. ``files`` are the
    names in the model directory: an ONNX export is quantised by whoever made it, or not at all.
    On the published weights none of this has been measured: the reason says so.
    """
    if device != "cpu":
        return _on_cuda(precision, device)
    native = flags & {"avx512_bf16", "amx_bf16"}
    if precision == "bf16" and not native:
        raise UnsupportedError(
            "precision bf16: this processor has no bf16 instructions (avx512_bf16, amx_bf16)",
            hint="Set `precision: auto`, fp32 or int8",
        )
    if precision == "int8" and "avx2" in flags and not flags & INT8_PRODUCTS:
        return PrecisionChoice(
            precision,
            tr(
                "precision int8: as configured; it saves memory and no time, because this processor has no "
                "int8 products ({lacking})",
                lacking=", ".join(sorted(INT8_PRODUCTS)),
            ),
        )
    if precision != "auto":
        return PrecisionChoice(
            precision, tr("precision {precision}: as configured", precision=precision)
        )
    if not files & {"model.pt", "model.onnx"}:
        return PrecisionChoice("int8", tr("precision int8, because only model_quant.onnx is there"))
    return _fastest(flags, own_weights="model.pt" in files)


def _on_cuda(precision: str, device: str) -> PrecisionChoice:
    if precision == "int8":
        raise UnsupportedError(
            "precision int8 is not served on CUDA", hint="Set `precision: auto` or bf16"
        )
    chosen = "bf16" if precision == "auto" else precision
    return PrecisionChoice(
        chosen,
        tr(
            "precision {chosen} on {device}, asked for as {precision}",
            chosen=chosen,
            device=device,
            precision=precision,
        ),
    )


def _fastest(flags: frozenset[str], *, own_weights: bool) -> PrecisionChoice:
    """Without ``own_weights`` the model is an ONNX export: its quantised file is an export of its own, and
    slower than model.onnx in bf16."""
    native = sorted(flags & {"amx_bf16", "avx512_bf16"})
    integer = sorted(flags & INT8_PRODUCTS) if own_weights else []
    doubt = tr(
        "same text on the test model, unproven on other weights: compare with `yibu "
        "bench`, or set `precision: fp32` to be exact"
    )
    if integer:
        return PrecisionChoice(
            "int8",
            tr(
                "precision int8, the fastest with {integer}; {doubt}",
                integer=integer[0],
                doubt=doubt,
            ),
        )
    if "amx_bf16" in flags or ("avx512_bf16" in flags and "AuthenticAMD" in flags):
        return PrecisionChoice(
            "bf16",
            tr("precision bf16, the fastest with {native}; {doubt}", native=native[0], doubt=doubt),
        )
    if native or not own_weights:
        lacks = (
            tr("has avx512_bf16 but no AMX, where bf16 is the slower")
            if native
            else tr("has no bf16 products")
        )
        return PrecisionChoice(
            "fp32", tr("precision fp32, because this processor {lacks}", lacks=lacks)
        )
    reason = tr(
        "precision fp32, because the processor has instructions for neither int8 "
        "(avx512_vnni, avx_vnni) nor bf16 (avx512_bf16, amx_bf16) products"
    )
    return PrecisionChoice("fp32", reason)

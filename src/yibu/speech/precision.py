"""Which arithmetic to compute in, from what the processor has, and the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yibu.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Choice:
    """A precision, and why."""

    precision: str
    reason: str


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's features as Linux names them; empty where it does not say."""
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def choose(
    precision: str, device: str, flags: frozenset[str], *, quantised_only: bool = False
) -> Choice:
    """Resolve ``precision`` (``auto``, ``fp32``, ``bf16``, ``int8``) for SenseVoice.

    ``auto`` takes bf16 where the processor multiplies it natively: it is about twice as fast
    as fp32 and keeps the text of the test model. It does not take int8, which is as fast as
    bf16 in this engine and changes more of the scores; where there is no native bf16 it stays
    with fp32, and says that int8 is there to be tried.
    """
    native = sorted(flags & {"amx_bf16", "avx512_bf16", "bf16"})
    if device != "cpu":
        if precision == "int8":
            raise UnsupportedError(
                "precision int8 is not served on CUDA", hint="set `precision: auto` or bf16"
            )
        chosen = "bf16" if precision == "auto" else precision
        return Choice(chosen, f"precision {chosen} on {device}, asked for as {precision}")
    if precision == "bf16" and not native:
        raise UnsupportedError(
            "precision bf16: this processor has no bf16 instructions (avx512_bf16, amx_bf16)",
            hint="set `precision: auto`, fp32 or int8",
        )
    if quantised_only and precision == "auto":
        return Choice("int8", "precision int8, chosen because only model_quant.onnx is there")
    if precision != "auto":
        return Choice(precision, f"precision {precision}: as configured")
    if native:
        reason = (
            f"precision bf16, chosen because the processor has {native[0]}: about twice as fast "
            "as fp32, same text on the test model; `precision: fp32` is the exact one"
        )
        return Choice("bf16", reason)
    reason = (
        "precision fp32, chosen because the processor has no bf16 instructions; `precision: "
        "int8` may be faster here, compare the two on your own files with `yibu bench`"
    )
    return Choice("fp32", reason)

"""SGLang: safetensors models on GPUs."""

from yibu.engines.sglang.engine import Sglang

__all__ = ["Sglang"]

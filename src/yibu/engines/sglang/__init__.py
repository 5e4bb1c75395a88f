"""SGLang: safetensors models on GPUs."""

from yibu.engines.sglang.engine import Sglang

ENGINE = Sglang

__all__ = ["ENGINE", "Sglang"]

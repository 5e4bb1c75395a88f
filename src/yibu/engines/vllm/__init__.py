"""vLLM: its flags, launch plan, chat templates and causes of failure."""

from yibu.engines.vllm.engine import Vllm

ENGINE = Vllm

__all__ = ["ENGINE", "Vllm"]

"""vLLM: its flags, launch plan, chat templates and causes of failure."""

from yibu.engines.vllm.engine import Vllm

__all__ = ["Vllm"]

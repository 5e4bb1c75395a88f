"""llama.cpp: its fields, launch plan and causes of failure."""

from yibu.engines.llama_cpp.engine import LlamaCpp

ENGINE = LlamaCpp

__all__ = ["ENGINE", "LlamaCpp"]

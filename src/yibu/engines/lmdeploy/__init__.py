"""LMDeploy: safetensors models on GPUs, by TurboMind or its PyTorch engine."""

from yibu.engines.lmdeploy.engine import Lmdeploy

__all__ = ["Lmdeploy"]

"""LMDeploy: safetensors models on GPUs, by TurboMind or its PyTorch engine."""

from yibu.engines.lmdeploy.engine import Lmdeploy

ENGINE = Lmdeploy

__all__ = ["ENGINE", "Lmdeploy"]

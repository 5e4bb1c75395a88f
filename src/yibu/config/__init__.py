"""yibu.yaml, environment and flags, merged into one frozen Config.

The types stand in ``types``; the file's schema and everything that reads bytes in ``file``, which
alone imports pydantic and YAML, so that the verbs that need no file start quickly.
"""

from yibu.config.engines import ENGINE_NAMES, EngineName
from yibu.config.types import Config, GatewayConfig, ModelConfig, Origin

__all__ = ["ENGINE_NAMES", "Config", "EngineName", "GatewayConfig", "ModelConfig", "Origin"]

"""Any OpenAI-compatible server, run from a command template of the user's."""

from yibu.engines.command.engine import Command

__all__ = ["Command"]

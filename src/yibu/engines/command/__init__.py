"""Any OpenAI-compatible server, run from a command template of the user's."""

from yibu.engines.command.engine import CommandEngine

ENGINE = CommandEngine

__all__ = ["ENGINE", "Command"]

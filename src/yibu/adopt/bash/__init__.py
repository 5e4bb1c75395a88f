"""What bash would run, evaluated without running it.

A real grammar (tree-sitter's) parses the script; its static part is evaluated exactly: variables,
arrays, arithmetic, functions, loops over known words, conditions that are known. What only running
it would tell is a ``Gap``; it does no harm until it reaches a command that matters, which is then
refused with the gap's line and construct.
"""

from yibu.adopt.bash.interpreter import Judge, Setting, read_commands
from yibu.adopt.bash.values import Command, Files, Gap, NoFiles, UnknownScriptError

__all__ = [
    "Command",
    "Files",
    "Gap",
    "Judge",
    "NoFiles",
    "Setting",
    "UnknownScriptError",
    "read_commands",
]

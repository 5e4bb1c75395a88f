"""Start SGLang's server as a node wants it.

    python -m yibu.launchers.sglang [--static-bytes N] -- FLAGS…

SGLang takes its key from the command line alone, which every user of the machine can read: here it
comes from SGLANG_API_KEY. And its ``--mem-fraction-static`` is a fraction of the memory that is free
when it starts (weights and cache together): here it is made of bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from yibu.launchers.cards import fraction, free_bytes

KEY_VARIABLE = "SGLANG_API_KEY"


class Hidden(str):
    """A key with a blank ``repr``: SGLang logs its arguments when it starts."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def arguments(argv: Sequence[str]) -> list[str]:
    """SGLang's arguments, with the memory fraction."""
    parser = argparse.ArgumentParser(prog="yibu.launchers.sglang", allow_abbrev=False)
    parser.add_argument("--static-bytes", type=int)
    parser.add_argument("flags", nargs="*")
    given = parser.parse_args(argv)
    flags: list[str] = given.flags
    if given.static_bytes is not None:
        flags += ["--mem-fraction-static", fraction(given.static_bytes, free_bytes())]
    return flags


def main() -> None:
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    key = os.environ.pop(KEY_VARIABLE, None)
    load_plugins()
    server_args = prepare_server_args(arguments(sys.argv[1:]))
    if key:
        server_args.api_key = Hidden(key)
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    main()

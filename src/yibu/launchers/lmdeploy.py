"""Start LMDeploy's server as a node wants it.

    python -m yibu.launchers.lmdeploy [--weight-bytes W --cache-bytes N] -- MODEL FLAGS…

LMDeploy takes its key from the command line alone, which every user of the machine can read: here it
comes from LMDEPLOY_API_KEY. And its ``--cache-max-entry-count`` is a fraction of the memory that is
free once the weights are loaded: here it is made of bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from yibu.launchers.cards import fraction, free_bytes

KEY_VARIABLE = "LMDEPLOY_API_KEY"
_CONTEXT = 512 << 20
"""Bytes of a card used by CUDA and its libraries beside the weights."""


def arguments(argv: Sequence[str]) -> list[str]:
    """LMDeploy's arguments, with the memory fraction."""
    parser = argparse.ArgumentParser(prog="yibu.launchers.lmdeploy", allow_abbrev=False)
    parser.add_argument("--weight-bytes", type=int, default=0)
    parser.add_argument("--cache-bytes", type=int)
    parser.add_argument("words", nargs="*")
    given = parser.parse_args(argv)
    words: list[str] = given.words
    if given.cache_bytes is not None:
        left = free_bytes() - given.weight_bytes - _CONTEXT
        words += ["--cache-max-entry-count", fraction(given.cache_bytes, left)]
    return words


def main() -> None:
    words = arguments(sys.argv[1:])
    key = os.environ.pop(KEY_VARIABLE, None)
    # Its parser reads the list; the process table keeps what it was started with.
    sys.argv = ["lmdeploy", "serve", "api_server", *words, *(["--api-keys", key] if key else [])]
    from lmdeploy.cli import run

    run()


if __name__ == "__main__":
    main()

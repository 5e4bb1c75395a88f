"""The program ``yibu``, which ``python -m yibu`` runs too."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run one verb. Ctrl-C says nothing, however early it comes: imports take a tenth of a second."""
    try:
        from yibu import messages

        messages.use(messages.language_of(os.environ))  # before what is imported speaks
        from yibu.cli.main import main as run

        run()
    except KeyboardInterrupt:
        from yibu.cli.exits import INTERRUPTED

        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

"""What the console asks of the node: given by whoever wires the two together."""

from __future__ import annotations

from typing import Protocol


class Manager(Protocol):
    """The node, for somebody who may do with it what its command line can."""

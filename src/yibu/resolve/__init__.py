"""From an entry of yibu.yaml to what runs: engine, placement, launch plan and environment.

`yibu plan`, `yibu config check`, `yibu up` and the node all ask :class:`Resolver`, so that what one of
them says is what another does.
"""

from yibu.resolve.facts import known_facts, stored_facts
from yibu.resolve.resolver import Prepared, Resolved, Resolver

__all__ = ["Prepared", "Resolved", "Resolver", "known_facts", "stored_facts"]

"""What every verb needs from its surroundings (``yibu.management.context``)."""

from yibu.management.context import Context, open_environments, open_resolver, open_store

__all__ = ["Context", "open_environments", "open_resolver", "open_store"]

"""The node as the gateway sees it: the types stand in :mod:`yibu.routing`, below both rooms."""

from yibu.routing import Backend, Route

__all__ = ["Backend", "Route"]

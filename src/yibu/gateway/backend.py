"""The node as the gateway sees it: the types stand in :mod:`yibu.routing`, below both rooms."""

from yibu.routing import Backend, Failure, ReplicaStatus, Route, State

__all__ = ["Backend", "Failure", "ReplicaStatus", "Route", "State"]

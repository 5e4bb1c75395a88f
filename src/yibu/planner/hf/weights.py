"""Weights by part of the model, because quantization treats the parts differently."""

from __future__ import annotations

from dataclasses import dataclass, fields

from yibu.planner.cache import CacheGroup


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights in elements, not bytes."""

    embedding: int = 0
    """Token embeddings, and other tables that are looked up."""
    head: int = 0
    """The output matrix where it is not the embeddings' own."""
    attention: int = 0
    feed_forward: int = 0
    """Dense layers and shared experts."""
    experts: int = 0
    """Routed experts."""
    other: int = 0
    """Norms, biases, routers: never quantized."""
    vision: int = 0
    """Image towers with their projectors."""
    audio: int = 0
    idle: int = 0
    """Elements of ``experts`` that one token does not use."""

    @property
    def total(self) -> int:
        every: int = sum(getattr(self, field.name) for field in fields(self))
        return every - self.idle

    @property
    def active(self) -> int:
        """Elements that one token uses."""
        return self.total - self.idle

    def __add__(self, more: Weights) -> Weights:
        names = (field.name for field in fields(self))
        return Weights(**{name: getattr(self, name) + getattr(more, name) for name in names})


@dataclass(frozen=True, slots=True)
class Described:
    """A model as config.json describes it."""

    weights: Weights
    keeps: tuple[CacheGroup, ...] = ()

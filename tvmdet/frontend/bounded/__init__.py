"""Exports whose sizes depend on the image, made static by bounds and masks."""

from tvmdet.frontend.bounded.bound import Bounded, bound_shapes

__all__ = ["Bounded", "bound_shapes"]

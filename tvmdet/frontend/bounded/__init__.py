"""Exports whose sizes depend on the image, made static by bounds and masks."""

from tvmdet.frontend.bounded.bound import Bounded, bound_shapes, depends_on_values
from tvmdet.frontend.bounded.pasting import BOX_MASKS, cut_pasting
from tvmdet.frontend.bounded.prove_rows import prove_rows

__all__ = [
    "BOX_MASKS",
    "Bounded",
    "bound_shapes",
    "cut_pasting",
    "depends_on_values",
    "prove_rows",
]

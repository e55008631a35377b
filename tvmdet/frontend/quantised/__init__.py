"""Quantised files as the float networks that they round.

Between a QuantizeLinear and its DequantizeLinear a value has been rounded to a step and kept within
what the integers can say. The second is part of what the network computes: quantisers drop the Relu
that the integers' lowest value replaces. The first is a loss that tvmdet, which has no integer
kernels, would pay for without the speed; and a sum that lies on the edge of a step goes up in one
runtime and down in another, so that nothing could be compared. Therefore weights become the floats
that their integers mean, exactly, and then a pair becomes a Clip.

Files of integer operators are brought to that form (QDQ) first: an operator becomes that of floats
between pairs (``qlinear``), a product whose steps depend on the picture too (``products``), and
what only moves integers moves floats (``moves``).
"""

from tvmdet.frontend.quantised.contrib_pairs import TAKEN, opset_of_pairs, take_pairs
from tvmdet.frontend.quantised.moves import MOVED, move_integers
from tvmdet.frontend.quantised.products import MULTIPLIED, prove_products, write_products
from tvmdet.frontend.quantised.qlinear import (
    PAIRED,
    has_integer_operators,
    integers_left_out,
    write_pairs,
)
from tvmdet.frontend.quantised.rounding import ROUNDED, drop_rounding, rounding_left_out
from tvmdet.frontend.quantised.steps import is_quantised
from tvmdet.frontend.quantised.weights import FOLDED, fold_weights, prove_weights

__all__ = [
    "FOLDED",
    "MOVED",
    "MULTIPLIED",
    "PAIRED",
    "ROUNDED",
    "TAKEN",
    "drop_rounding",
    "fold_weights",
    "has_integer_operators",
    "integers_left_out",
    "is_quantised",
    "move_integers",
    "opset_of_pairs",
    "prove_products",
    "prove_weights",
    "rounding_left_out",
    "take_pairs",
    "write_pairs",
    "write_products",
]

"""Quantised files (QDQ) as the float networks that they round.

Between a QuantizeLinear and its DequantizeLinear a value has been rounded to a step and kept within
what the integers can say. The second is part of what the network computes: quantisers drop the Relu
that the integers' lowest value replaces. The first is a loss that tvmdet, which has no integer
kernels, would pay for without the speed; and a sum that lies on the edge of a step goes up in one
runtime and down in another, so that nothing could be compared. Therefore weights become the floats
that their integers mean, exactly, and then a pair becomes a Clip.
"""

from tvmdet.frontend.quantised.rounding import ROUNDED, drop_rounding, rounding_left_out
from tvmdet.frontend.quantised.steps import is_quantised
from tvmdet.frontend.quantised.weights import FOLDED, fold_weights, prove_weights

__all__ = [
    "FOLDED",
    "ROUNDED",
    "drop_rounding",
    "fold_weights",
    "is_quantised",
    "prove_weights",
    "rounding_left_out",
]

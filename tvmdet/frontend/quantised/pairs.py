"""What a QuantizeLinear and its DequantizeLinear let through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from tvmdet.frontend.quantised.steps import RANGES, Constants, is_node, read_steps

__all__ = ["Pair", "read_pair", "rounds_each_picture"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair with one step.

    Attributes:
        least: The lowest value that its integers can say, in the type of the values.
        greatest: The highest one.
        step: Between neighbours.
    """

    least: npt.NDArray[Any]
    greatest: npt.NDArray[Any]
    step: float

    def furthest(self, steps: float) -> float:
        """Returns how far a value may be from its integer's: steps, and the floats' rounding."""
        greatest = max(abs(float(self.least)), abs(float(self.greatest)))
        own = 2 * greatest * float(np.finfo(self.least.dtype).eps)
        return self.step * steps * (1 + 1e-3) + own


def read_pair(
    node: onnx.NodeProto,
    quantiser: onnx.NodeProto | None,
    constants: Constants,
    types: Mapping[str, int],
) -> Pair | None:
    """Returns what a pair lets through; None if it is no pair with one step.

    Args:
        node: A DequantizeLinear.
        quantiser: What makes its integers.
        constants: Constant tensors by name.
        types: Element types of values by name.
    """
    if quantiser is None or not is_node(quantiser, "QuantizeLinear"):
        return None
    first, second = read_steps(quantiser, constants), read_steps(node, constants)
    if first is None or second is None or first.scale.size != 1 or second.scale.size != 1:
        return None
    if first.scale.item() != second.scale.item() or first.zero.item() != second.zero.item():
        return None
    # Clip wants its limits in the type of the value, and gives that type.
    kinds = {constants[one.input[1]].data_type for one in (quantiser, node)}
    if kinds != {types.get(quantiser.input[0])}:
        return None
    dtype = first.scale.dtype
    scale, zero = float(first.scale.item()), int(first.zero.item())
    whole = RANGES[first.kind or second.kind or TensorProto.UINT8]
    most = float(np.finfo(dtype).max)
    exact = np.clip([(bound - zero) * scale for bound in whole], -most, most)
    least, greatest = limits = exact.astype(dtype)
    if np.abs(limits - exact).max() > scale / 4:
        return None  # half floats do not tell limits of 16-bit integers apart
    return Pair(least=least, greatest=greatest, step=scale)


def rounds_each_picture(node: onnx.NodeProto, quantiser: onnx.NodeProto | None) -> bool:
    """Returns whether a DequantizeLinear undoes a DynamicQuantizeLinear.

    Such a pair has the limits of its values, and so changes them by its rounding only.
    """
    return (
        quantiser is not None
        and is_node(quantiser, "DynamicQuantizeLinear")
        and list(node.input) == list(quantiser.output)
    )

"""Maps of a feature pyramid as network outputs: how they lie, and which stride each has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.heads.base import GraphSummary

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["MapForm", "find_levels", "find_maps"]

_LARGEST_STRIDE = 128


@dataclass(frozen=True, kw_only=True)
class MapForm:
    """How the values of a map's anchors lie in memory.

    Attributes:
        axes: Order of the dimensions after the batch: anchors p, height h, width w, values v.
        per_cell: Anchors in a cell.
        height: Rows of cells.
        width: Cells of a row.
        values: Values of an anchor.
    """

    axes: str
    per_cell: int
    height: int
    width: int
    values: int

    @classmethod
    def of(cls, shape: tuple[int, ...], cells: tuple[int, int], per_cell: int) -> MapForm | None:
        """Returns the form of an output of so many cells and anchors, or None if it has none."""
        height, width = cells
        rest = tuple(shape[1:])
        if len(rest) == 3:
            forms = {"pvhw": (rest[0], rest[1:]), "hwpv": (rest[2], rest[:2])}
            for axes, (channels, sides) in forms.items():
                if sides == (height, width) and channels % per_cell == 0:
                    values = channels // per_cell
                    return cls(
                        axes=axes, per_cell=per_cell, height=height, width=width, values=values
                    )
        if len(rest) == 4:
            for axes in ("phwv", "hwpv", "pvhw"):
                sizes = dict(zip(axes, rest, strict=True))
                if (sizes["h"], sizes["w"], sizes["p"]) == (height, width, per_cell):
                    return cls(
                        axes=axes,
                        per_cell=per_cell,
                        height=height,
                        width=width,
                        values=sizes["v"],
                    )
        return None

    def emit_rows(self, bb: relax.BlockBuilder, value: Any) -> Any:
        """Emits ``[N, H W P, V]``, or ``[N, P H W, V]`` where that needs no transposition."""
        from tvm import relax

        batch = int(value.ty.shape[0])
        if self.axes == "pvhw":
            # As NCHW: the network works in NHWC, where this transposition costs nothing.
            channels = self.per_cell * self.values
            value = bb.emit(relax.op.reshape(value, (batch, channels, self.height, self.width)))
            value = bb.emit(relax.op.permute_dims(value, [0, 2, 3, 1]))
        return bb.emit(relax.op.reshape(value, (batch, self._rows, self.values)))

    def reference(self, value: np.ndarray) -> np.ndarray:
        """Returns ``[N, P, H, W, V]``."""
        sizes = {"p": self.per_cell, "v": self.values, "h": self.height, "w": self.width}
        apart = value.reshape(value.shape[0], *(sizes[axis] for axis in self.axes))
        return np.moveaxis(apart, [1 + self.axes.index(axis) for axis in "phwv"], [1, 2, 3, 4])

    def flatten(self, value: np.ndarray) -> np.ndarray:
        """Returns ``[N, P, H, W, K]`` as rows in the order of :meth:`emit_rows`."""
        if self.axes != "phwv":
            value = value.transpose(0, 2, 3, 1, 4)
        return value.reshape(value.shape[0], self._rows, value.shape[-1])

    @property
    def _rows(self) -> int:
        return self.per_cell * self.height * self.width


def find_maps(
    summary: GraphSummary, size_hw: tuple[int, int], names: Sequence[str] | None
) -> dict[str, int] | str:
    """Returns the stride of every output that may be a map, or why one is none.

    Args:
        summary: The network.
        size_hw: Height and width of its input.
        names: The outputs that count, as the user names them; all of them when None.
    """
    found: dict[str, int] = {}
    for name in names or summary.outputs:
        shape = tuple(int(dim or 0) for dim in summary.outputs[name].shape)
        stride = _stride(shape, size_hw)
        if stride is None:
            return (
                f"{name} is {summary.outputs[name]}; raw maps are [N, channels, height / stride, "
                "width / stride], or that with anchors apart, one for each level"
            )
        found[name] = stride
    return found or "it has no outputs"


def find_levels(
    maps: Mapping[str, int], size_hw: tuple[int, int], strides: Sequence[int] | None
) -> dict[int, str] | str:
    """Returns the map of each stride, finest first, or why there is no such pyramid."""
    levels = {stride: name for name, stride in sorted(maps.items(), key=lambda item: item[1])}
    listed = ", ".join(f"{name} has stride {stride}" for name, stride in maps.items())
    if len(levels) != len(maps):
        return f"several maps are of one level at {size_hw[0]}x{size_hw[1]}: {listed}"
    if strides is not None and tuple(levels) != tuple(strides):
        wanted = ", ".join(str(stride) for stride in strides)
        return f"the levels are not of strides {wanted} at {size_hw[0]}x{size_hw[1]}: {listed}"
    return levels


def _stride(shape: tuple[int, ...], size_hw: tuple[int, int]) -> int | None:
    """Returns the stride whose cells two neighbouring dimensions count."""
    if len(shape) not in (4, 5) or 0 in shape:
        return None
    places = ((2, 3), (1, 2)) if len(shape) == 4 else ((2, 3), (3, 4), (1, 2))
    for row, column in places:
        stride = size_hw[0] // shape[row]
        power = stride > 1 and math.log2(stride).is_integer() and stride <= _LARGEST_STRIDE
        if power and (shape[row], shape[column]) == (size_hw[0] // stride, size_hw[1] // stride):
            return stride
    return None

"""Bilinear sampling at computed points, in the form that a template schedules.

Where a point lies and what its four neighbours weigh is worked out once per point, not once per
channel as in TVM's own expression, and channels lie innermost, so that each neighbour is read as
whole vectors. The layout pass asks for that order (:mod:`.nhwc_rules`).
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

__all__ = ["grid_sample", "samples_channels_last"]


def samples_channels_last(call: Any) -> bool:
    """Returns whether :func:`grid_sample` can compute a call to ``relax.image.grid_sample``."""
    attrs = call.attrs
    return (
        attrs.method == "bilinear"
        and attrs.padding_mode in ("zeros", "border")
        and len(call.ty.shape) == 4
        and all(str(arg.ty.dtype) == "float32" for arg in call.args)
    )


def grid_sample(
    data: te.Tensor, grid: te.Tensor, layout: str, *, border: bool, align_corners: bool
) -> te.Tensor:
    """Returns the tensor expression.

    What a point outside the picture reads is multiplied with zero, so that an infinite pixel at
    the border makes it NaN. A point that is NaN lies outside.

    Args:
        data: Axes N, H, W in any order, then C; float32.
        grid: ``[N, 2, H, W]``, x and y of each point in -1 to 1; float32.
        layout: The order of the axes of ``data`` and of the result, such as ``NHWC``.
        border: Points outside read the nearest pixel, instead of zero.
        align_corners: -1 and 1 are the centres of the first and last pixel, instead of their
            outer borders.
    """
    lead = layout[:-1]
    extents = dict(zip(layout, (int(d) for d in data.shape), strict=True))
    height, width = extents["H"], extents["W"]
    made = {"N": extents["N"], "H": int(grid.shape[2]), "W": int(grid.shape[3])}
    points = [made[axis] for axis in lead]

    def of_axis(axis: Any, vertical: float, horizontal: float) -> Any:
        return tirx.Select(
            axis == 0, tirx.const(vertical, "float32"), tirx.const(horizontal, "float32")
        )

    def position(axis: Any, *place: Any) -> Any:
        at = dict(zip(lead, place, strict=True))
        relative = grid(at["N"], 1 - axis, at["H"], at["W"]) + 1.0
        if align_corners:
            where = relative * of_axis(axis, (height - 1) / 2, (width - 1) / 2)
        else:
            where = relative * of_axis(axis, height / 2, width / 2) - 0.5
        # Bounded, so that its floor is an integer; min takes its second operand for NaN.
        first, last = (0, -1) if border else (-2, 1)
        where = tirx.min(where, of_axis(axis, height + last, width + last))
        return tirx.max(where, tirx.const(first, "float32"))

    where = te.compute(
        (2, *points), position, name="position", attrs={"tvmdet.grid_sample": "position"}
    )

    def neighbour(axis: Any, side: Any, *place: Any) -> Any:
        return tirx.floor(where(axis, *place)).astype("int32") + side.astype("int32")

    def weigh(axis: Any, side: Any, *place: Any) -> Any:
        found = neighbour(axis, side, *place).astype("float32")
        inside = tirx.all(found >= 0.0, found < of_axis(axis, height, width))
        share = 1.0 - tirx.abs(where(axis, *place) - found)
        return tirx.Select(inside, share, tirx.const(0.0, "float32"))

    note = {"tvmdet.grid_sample": "points"}
    pixel = te.compute((2, 2, *points), neighbour, name="pixel", attrs=note)
    weight = te.compute((2, 2, *points), weigh, name="weight", attrs=note)

    def sample(*index: Any) -> Any:
        place, channel = index[:-1], index[-1]
        at = dict(zip(lead, place, strict=True))
        total: Any = 0
        for above in (0, 1):
            row: Any = 0
            y = _bound(pixel(0, above, *place), height)
            for left in (0, 1):
                x = _bound(pixel(1, left, *place), width)
                where_from = {**at, "H": y, "W": x, "C": channel}
                read = data(*(where_from[axis] for axis in layout))
                row = row + weight(1, left, *place) * read
            total = total + weight(0, above, *place) * row
        return total

    return te.compute(
        (*points, extents["C"]),
        sample,
        name="sample",
        attrs={"tvmdet.grid_sample": f"grid_sample {height}x{width}"},
    )


def _bound(index: Any, extent: int) -> Any:
    """Returns a pixel's index inside the picture; the simplifier then knows that it is."""
    return tirx.max(tirx.min(index, extent - 1), 0).astype("int64")

"""Reshapes whose places are as plain as they can be told.

TVM counts every place of the result and divides it by the sizes of what is read, ``(j // 80 + i) %
6400 // 80`` where ``i // 80`` is meant. A reshape by itself is no copy. But fused with what reads
it, such as the concatenation of a detector's maps, it is a division for each element, and where the
columns of another tensor begin, nothing proves any more that ``j // 80`` is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, sym, te, tirx
from tvm.ir import Range

from tvmdet.passes.relax_tools import static_shape

__all__ = ["legalize_reshape"]


def legalize_reshape(builder: relax.BlockBuilder, call: Any) -> Any:
    """Legalises ``relax.reshape`` between static shapes."""
    shape = static_shape(call)
    return builder.call_te(
        lambda data: _reshape(data, shape), call.args[0], primfunc_name_hint="reshape"
    )


def _reshape(data: te.Tensor, shape: Sequence[int]) -> te.Tensor:
    def read(*axes: Any) -> Any:
        analyzer = sym.Analyzer()
        place: Any = tirx.const(0, "int64")
        for axis, size in zip(axes, shape, strict=True):
            analyzer.bind(axis, Range(0, size))
            place = place * size + axis
        indices = []
        for size in reversed(data.shape):
            indices.append(analyzer.simplify(tirx.floormod(place, size)))
            place = analyzer.simplify(tirx.floordiv(place, size))
        return data(*reversed(indices))

    return te.compute(shape, read, name="T_reshape")

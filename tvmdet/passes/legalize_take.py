"""Gathers that stay inside their data, whatever the indices say.

The importer marks ONNX Gather as TVM's ``fast`` mode, which reads out of bounds for an index out
of bounds; indices can come from a picture. Clipping them costs two comparisons.
"""

from __future__ import annotations

from typing import Any

from tvm import relax, topi

__all__ = ["legalize_take"]


def legalize_take(builder: relax.BlockBuilder, call: Any) -> Any:
    """Legalises ``relax.take``; indices past either end read the nearest entry."""
    axis = call.attrs.axis
    data, indices = call.args
    return builder.call_te(
        topi.take,
        data,
        indices,
        None if axis is None else int(axis),
        0,
        "clip",
        primfunc_name_hint="take",
    )

"""The error inside the rewriting: this node cannot be bounded."""

from __future__ import annotations

import onnx

from tvmdet.errors import ShapeError
from tvmdet.frontend.onnx_tools import describe

__all__ = ["blocked"]


def blocked(node: onnx.NodeProto, reason: str) -> ShapeError:
    """Returns the error for a node whose output's size cannot be bounded."""
    return ShapeError(
        f"{describe(node)}: {reason}; tvmdet bounds what depends on the image (NonZero, TopK, "
        "NonMaxSuppression, Gather, ...), but not this: export the model with fixed-size "
        "outputs, without non-maximum suppression"
    )

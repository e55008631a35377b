"""The error inside the rewriting: this node cannot be bounded."""

from __future__ import annotations

import onnx

from tvmdet.errors import ShapeError
from tvmdet.frontend.onnx_tools import describe

__all__ = ["BlockedError", "blocked"]


class BlockedError(ShapeError):
    """A node's size cannot be bounded.

    Attributes:
        node: Which.
    """

    def __init__(self, message: str, node: onnx.NodeProto) -> None:
        """Takes the whole message and the node."""
        super().__init__(message)
        self.node = node


def blocked(node: onnx.NodeProto, reason: str) -> BlockedError:
    """Returns the error for a node whose output's size cannot be bounded."""
    return BlockedError(
        f"{describe(node)}: {reason}; tvmdet bounds what depends on the image (NonZero, TopK, "
        "NonMaxSuppression, Gather, ...), but not this: export the model with fixed-size "
        "outputs, without non-maximum suppression",
        node,
    )

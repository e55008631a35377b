"""Ranges of numbers, counted before ONNX writes them out."""

from __future__ import annotations

import math

import onnx

from tvmdet.errors import ModelError
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import constant_values, constants_of, describe, iter_graphs

__all__ = ["check_ranges"]

# Shape inference that follows values holds each number of a range several times over, as text of
# a protobuf: what 8 bytes stand for takes about ten times as much.
_BYTES_PER_VALUE = 80


def check_ranges(model: onnx.ModelProto, limits: Limits) -> None:
    """Refuses Range nodes with constant ends that are too far apart.

    Raises:
        ModelError: The numbers of a range would take more than ``Limits.max_tensor_bytes`` while
            shapes are inferred; names the node.
    """
    for graph in iter_graphs(model.graph):
        constants = constants_of(graph)
        for node in graph.node:
            if node.op_type != "Range" or not all(name in constants for name in node.input):
                continue
            ends = [constant_values(constants[name]).reshape(-1) for name in node.input]
            if len(ends) != 3 or any(end.size != 1 for end in ends):
                continue  # malformed; the checker and the inference say how
            start, limit, step = (float(end[0]) for end in ends)
            # A step of 0, or NaN anywhere, compares as false; inference says what is wrong with it.
            count = (limit - start) / step if step else math.nan
            if count * _BYTES_PER_VALUE > limits.max_tensor_bytes:
                raise ModelError(
                    f"{describe(node)} counts from {start:g} to {limit:g} by {step:g}: more "
                    f"numbers than fit into {limits.max_tensor_bytes} bytes "
                    "(Limits.max_tensor_bytes); the file is damaged: export it again"
                )

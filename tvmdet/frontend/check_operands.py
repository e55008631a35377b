"""Operands that the standard's checker takes and that native code does not survive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx

from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import constants_of, describe, iter_graphs

__all__ = ["check_operands"]

_MOST_SAMPLES = 1024  # of a RoiAlign, along each axis of a cell


def check_operands(path: Path, model: onnx.ModelProto) -> None:
    """Refuses operands that end ONNX Runtime, or that folding would not come back from.

    Raises:
        ModelError: There is one; names its node.
    """
    for graph in iter_graphs(model.graph):
        constants = constants_of(graph)
        for node in graph.node:
            said = [a.i for a in node.attribute if a.name == "sampling_ratio"]
            if node.op_type == "RoiAlign" and max(said, default=0) > _MOST_SAMPLES:
                wrong = f"has sampling_ratio {max(said)}; allowed: up to {_MOST_SAMPLES}"
            elif node.op_type == "Tile" and not _fits_tile(node, constants):
                wrong = "repeats other dimensions than its input has"
            else:
                continue
            raise ModelError(
                f"{path}: {describe(node)} {wrong}; the file is damaged: export or copy it again"
            )


def _fits_tile(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    known = [constants.get(name) for name in node.input]
    if len(known) != 2 or known[0] is None or known[1] is None:
        return True
    repeats: int = math.prod(known[1].dims)
    return repeats == len(known[0].dims)

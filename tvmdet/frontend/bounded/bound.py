"""From a network with open sizes to a static one, as one function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from tvmdet.errors import ShapeError

# Importing a module of rules registers them.
from tvmdet.frontend.bounded import (  # noqa: F401
    control,
    elementwise,
    indexing,
    layout,
    loops,
    padding,
    selection,
    suppression,
)
from tvmdet.frontend.bounded.demand import first_rows
from tvmdet.frontend.bounded.errors import BlockedError
from tvmdet.frontend.bounded.outputs import finish
from tvmdet.frontend.bounded.pasting import cut_pasting
from tvmdet.frontend.bounded.rewriter import SOURCES, Rewriter
from tvmdet.frontend.keep_outputs import without
from tvmdet.frontend.limits import Limits

__all__ = ["Bounded", "bound_shapes", "depends_on_values"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bounded:
    """A network made static.

    Attributes:
        before: What it was made of: the original up to the pasting of masks, with open sizes.
        model: The network; see :func:`tvmdet.frontend.bounded.outputs.finish` for its outputs.
        notes: What was bounded and how, one fact a line.
        opened: For each output with open dimensions, which axis is counted by which output.
    """

    before: onnx.ModelProto
    model: onnx.ModelProto
    notes: tuple[str, ...]
    opened: Mapping[str, Mapping[int, str]]


def bound_shapes(model: onnx.ModelProto, limits: Limits) -> Bounded:
    """Rewrites a network so that every size is static; not yet proven.

    Args:
        model: Simplified, with static inputs, its nodes in topological order.
        limits: ``max_rows`` bounds what the graph does not.

    Raises:
        ShapeError: A size cannot be bounded; names the node.
        UnsupportedOperatorError: An operator on open sizes is none that can be bounded.
    """
    model, cuts = cut_pasting(model)
    rewriter = Rewriter(model, limits, first_rows(model))
    try:
        rewriter.run(model.graph.node, rewriter.values)
    except BlockedError as error:
        way = without(model.graph, [error.node])
        # Without the node: errors cross to other processes.
        raise ShapeError(f"{error}; {way}" if way else str(error)) from error
    names = [value.name for value in model.graph.output]
    missing = [name for name in names if name not in rewriter.values]
    if missing:
        raise ShapeError(f"no node computes output {missing[0]!r}; export the model again")
    result, opened = finish(rewriter, model, names)
    notes = tuple(dict.fromkeys((*cuts, *rewriter.notes)))
    return Bounded(before=model, model=result, notes=notes, opened=opened)


def depends_on_values(model: onnx.ModelProto) -> bool:
    """Returns whether a node chooses its output's size by what it is given."""
    return any(node.op_type in SOURCES for node in model.graph.node)

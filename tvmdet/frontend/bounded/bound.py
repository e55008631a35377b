"""From a network with open sizes to a static one, as one function."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from tvmdet.errors import ShapeError

# Importing a module of rules registers them.
from tvmdet.frontend.bounded import (  # noqa: F401
    control,
    elementwise,
    indexing,
    layout,
    selection,
    suppression,
)
from tvmdet.frontend.bounded.demand import first_rows
from tvmdet.frontend.bounded.outputs import finish
from tvmdet.frontend.bounded.rewriter import Rewriter
from tvmdet.frontend.limits import Limits

__all__ = ["Bounded", "bound_shapes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bounded:
    """A network made static.

    Attributes:
        model: The network; see :func:`tvmdet.frontend.bounded.outputs.finish` for its outputs.
        notes: What was bounded and how, one fact a line.
    """

    model: onnx.ModelProto
    notes: tuple[str, ...]


def bound_shapes(model: onnx.ModelProto, limits: Limits) -> Bounded:
    """Rewrites a network so that every size is static; not yet proven.

    Args:
        model: Simplified, with static inputs, its nodes in topological order.
        limits: ``max_rows`` bounds what the graph does not.

    Raises:
        ShapeError: A size cannot be bounded; names the node.
        UnsupportedOperatorError: An operator on open sizes is none that can be bounded.
    """
    rewriter = Rewriter(model, limits, first_rows(model))
    rewriter.run(model.graph.node, rewriter.values)
    names = [value.name for value in model.graph.output]
    missing = [name for name in names if name not in rewriter.values]
    if missing:
        raise ShapeError(f"no node computes output {missing[0]!r}; export the model again")
    result = finish(rewriter, model, names)
    return Bounded(model=result, notes=tuple(dict.fromkeys(rewriter.notes)))

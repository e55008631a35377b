"""Loops whose number of rounds is known: each round is written out after the last.

The TensorFlow Object Detection API runs what it does to one picture, resizing before the network
and suppression after it, in a loop over the pictures of a batch (``tf.map_fn``), and tf2onnx keeps
that loop. At a fixed batch size the rounds are a constant.
"""

from __future__ import annotations

import numpy as np
import onnx

from tvmdet.frontend.bounded.attributes import graph_attribute
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.inner_graph import run_inner_graph
from tvmdet.frontend.bounded.rewriter import Rewriter, rule
from tvmdet.frontend.bounded.values import Value
from tvmdet.frontend.onnx_tools import iter_graphs

__all__: list[str] = []

_HEAD = 2  # a body takes the round's number and the condition before what is carried


@rule("Loop")
def _loop(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    body, scope = graph_attribute(node, "body"), dict(rw.scope)
    trips, condition = inputs[0], inputs[1]
    most = None if trips is None else _known(rw, node, trips, "number of rounds")
    carried = [value for value in inputs[_HEAD:] if value is not None]
    stacks: list[list[Value]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
    counts_on = condition is None and _hands_condition_on(body)
    count = 0
    while (most is None or count < most) and _continues(rw, node, condition):
        count += 1
        _check_length(rw, node, body, most if most is not None and counts_on else count)
        number = rw.plain(rw.emit.constant(count - 1))
        held = rw.plain(rw.emit.constant(True, np.bool_)) if condition is None else condition
        results = run_inner_graph(rw, body, scope, [number, held, *carried])
        # ONNX Runtime ends a loop by the condition of its body, also without one at its input.
        condition, carried = results[0], results[1 : 1 + len(carried)]
        for stack, value in zip(stacks, results[1 + len(carried) :], strict=True):
            stack.append(value)
    if stacks and not count:
        raise blocked(node, "it has no rounds, so nothing says what its outputs are")
    rw.notes.append(f"Loop {node.name!r}: its {count} rounds are written out")
    return [*carried, *(_stacked(rw, node, stack) for stack in stacks)]


def _hands_condition_on(body: onnx.GraphProto) -> bool:
    """Returns whether a body says what it was told: only the number of rounds ends the loop."""
    makers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type in ("Cast", "Identity"):
        name = makers[name].input[0]
    return bool(name == body.input[1].name)


def _continues(rw: Rewriter, node: onnx.NodeProto, condition: Value | None) -> bool:
    return condition is None or bool(_known(rw, node, condition, "condition"))


def _known(rw: Rewriter, node: onnx.NodeProto, value: Value, what: str) -> int:
    sizes = rw.sizes(value)
    if sizes is None or sizes.size != 1 or not isinstance(sizes.reshape(-1)[0], int):
        raise blocked(node, f"its {what} depends on the image")
    return int(sizes.reshape(-1)[0])


def _check_length(rw: Rewriter, node: onnx.NodeProto, body: onnx.GraphProto, count: int) -> None:
    """Refuses a loop that would become more nodes than a file may have."""
    nodes = sum(len(graph.node) for graph in iter_graphs(body))
    if count * max(nodes, 1) > rw.limits.max_nodes:
        raise blocked(
            node,
            f"its {count} rounds of {nodes} nodes are more than {rw.limits.max_nodes} nodes "
            "(Limits.max_nodes)",
        )


def _stacked(rw: Rewriter, node: onnx.NodeProto, values: list[Value]) -> Value:
    """Returns one value of every round, in a new first dimension."""
    values = [rw.numbers(value) for value in values]
    symbols = values[0].symbols
    if any(value.symbols != symbols or value.shape != values[0].shape for value in values):
        raise blocked(node, "its rounds return values of different sizes")
    shape = rw.emit.constant([1, *values[0].shape])
    parts = [rw.emit.node("Reshape", rw.tensor(value), shape) for value in values]
    name = parts[0] if len(parts) == 1 else rw.emit.node("Concat", *parts, axis=0)
    return rw.value(name, [None, *symbols])

"""Another batch size for a network, proven image by image.

Many exports fix batch 1 in the input and in the target shapes of Reshape nodes. Both are
rewritten; whether the result still treats every image alone is not argued but measured.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tvmdet.errors import ModelError, ShapeError
from tvmdet.frontend.onnx_tools import (
    constant_values,
    constants_of,
    describe,
    graph_inputs,
    value_summary,
)
from tvmdet.frontend.prove import TOLERANCE, Proof, differences, probes, run_onnx
from tvmdet.frontend.specialise import static_values, with_input_shapes

__all__ = ["prove_batch", "rewrite_batch"]

# Operators whose target shape is a constant input, by that input's index.
_SHAPE_INPUTS = {"Reshape": 1, "Expand": 1}
_RESIZE_SIZES = 3


def rewrite_batch(model: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    """Returns a copy of a static network at another batch size, not yet proven.

    The first dimension of every input is replaced, and the first entry of every constant
    target shape (Reshape, Expand, Resize) that repeats the old batch size on a value that
    depends on the image.
    """
    shapes = _input_shapes(model)
    old = next(iter(shapes.values()))[0]
    copy = with_input_shapes(
        model, {name: (batch_size, *shape[1:]) for name, shape in shapes.items()}
    )
    values, constants = static_values(model), constants_of(model.graph)
    for node in copy.graph.node:
        index = _RESIZE_SIZES if node.op_type == "Resize" else _SHAPE_INPUTS.get(node.op_type)
        if index is None or len(node.input) <= index or node.input[index] not in constants:
            continue
        target = constant_values(constants[node.input[index]])
        from_image = node.input[0] not in constants and values[node.input[0]][:1] == (old,)
        if target.ndim != 1 or target.size == 0 or target[0] != old or not from_image:
            continue
        changed = target.copy()
        changed[0] = batch_size
        # A constant may be shared with nodes that must keep it.
        name = f"{node.name}_shape_at_batch_{batch_size}"
        copy.graph.initializer.append(numpy_helper.from_array(changed, name))
        node.input[index] = name
    return copy


def prove_batch(one: onnx.ModelProto, many: onnx.ModelProto) -> Proof:
    """Checks that a batch gives for each image what the image gives alone.

    Every row of the batch is a different random image. The reference runs at its own batch
    size with the same image in every row. Values may differ by
    :data:`tvmdet.frontend.prove.TOLERANCE`.

    Args:
        one: The reference network, static.
        many: The same network at another batch size, static.

    Returns:
        The largest difference of each output.

    Raises:
        ShapeError: It does not; names the first node that fixes or mixes the batch.
    """
    cause: ModelError | None = None
    try:
        static_values(many)
        proof = _compare(one, many)
        if proof is not None and proof.largest <= TOLERANCE:
            return proof
    except ModelError as error:
        cause = error
    batch = _batch_of(many)
    node = _culprit(one, many)
    where = "its outputs change" if node is None else f"{describe(node)} fixes or mixes the batch"
    raise ShapeError(
        f"the export does not work at batch {batch}: {where}; allowed: the exported batch size; "
        "export with a dynamic batch axis (torch: dynamic_axes={'images': {0: 'batch'}}; "
        "Ultralytics: dynamic=True; Paddle: input_shape [-1, ...])"
    ) from cause


def _input_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in graph_inputs(model.graph):
        summary = value_summary(value)
        if summary is None or not summary.shape:
            raise ShapeError(
                f"input {value.name!r} has no batch dimension; only batch 1 can be compiled"
            )
        shapes[value.name] = tuple(int(dim or 0) for dim in summary.shape)
    if len({shape[0] for shape in shapes.values()}) != 1:
        raise ShapeError(
            f"the inputs have different first dimensions ({shapes}); only the exported batch "
            "size can be compiled"
        )
    return shapes


def _compare(one: onnx.ModelProto, many: onnx.ModelProto) -> Proof | None:
    """Measures how far a batch is from each image alone; None where an output has no batch."""
    feeds = probes(many, seed=1)
    old, count = _batch_of(one), _batch_of(many)
    singles = [
        {name: np.repeat(value[row : row + 1], old, axis=0) for name, value in inputs.items()}
        for inputs in feeds.values()
        for row in range(count)
    ]
    got, alone = run_onnx(many, list(feeds.values())), run_onnx(one, singles)
    if any(value.shape[:1] != (old,) for value in alone[0].values()):
        return None
    largest = dict.fromkeys(alone[0], 0.0)
    for at, together in enumerate(got):
        rows = alone[at * count : (at + 1) * count]
        expected = {name: np.concatenate([row[name][:1] for row in rows]) for name in largest}
        found = differences(expected, together, list(expected))
        largest = {name: max(largest[name], found[name]) for name in largest}
    rewrite = f"batch {old} to batch {count}"
    return Proof(rewrite=rewrite, differences=largest, inputs=tuple(feeds))


def _batch_of(model: onnx.ModelProto) -> int:
    return next(iter(_input_shapes(model).values()))[0]


def _culprit(one: onnx.ModelProto, many: onnx.ModelProto) -> onnx.NodeProto | None:
    """Returns the node after which the batch is no longer image by image, by bisection."""
    low, high = 0, len(many.graph.node)  # the first `low` nodes are right, `high` are wrong
    while high - low > 1:
        middle = (low + high) // 2
        try:
            proof = _compare(_prefix(one, middle), _prefix(many, middle))
            right = proof is not None and proof.largest <= TOLERANCE
        except ModelError:
            right = False
        low, high = (middle, high) if right else (low, middle)
    return many.graph.node[high - 1] if high else None


def _prefix(model: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """Returns the first nodes of a network, with what they leave unused as outputs."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[count:]
    used = {name for node in cut.graph.node for name in node.input}
    del cut.graph.output[:]
    for node in cut.graph.node:
        for name in node.output:
            if name and name not in used:
                cut.graph.output.add().name = name
    return cut

"""Static shapes: from an export with open dimensions to a network of one size and batch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from tvmdet.errors import ModelError, ShapeError
from tvmdet.frontend.bounded import (
    Bounded,
    bound_shapes,
    cut_pasting,
    depends_on_values,
    prove_rows,
)
from tvmdet.frontend.infer_shapes import infer_shapes
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import (
    describe,
    first_line,
    graph_inputs,
    input_summary,
    value_summary,
)
from tvmdet.frontend.prove import Proof, prove_equal
from tvmdet.frontend.ranges import check_ranges
from tvmdet.frontend.shape_lengths import check_shape_lengths
from tvmdet.frontend.shape_values import fold_shape_values
from tvmdet.frontend.simplify import simplify
from tvmdet.steps import reached

__all__ = [
    "SIMPLIFIED",
    "image_axes",
    "input_shapes",
    "record_outputs",
    "specialise",
    "static_values",
    "with_input_shapes",
]

_NO_MEMORY = (
    "inferring the model's shapes needs more memory than there is; check the constants that its "
    "sizes are computed from, and export it again"
)
_LONGEST_VECTOR = 2**24
"""Whole numbers in a row that ONNX's inference is let write out, at dozens of bytes each."""

SIMPLIFIED = "constants folded and nodes fused (onnxslim), at static shapes"


def input_shapes(
    model: onnx.ModelProto, *, batch_size: int, size_hw: tuple[int, int] | None
) -> dict[str, tuple[int, ...]]:
    """Decides the static shape of every input.

    Open first dimensions become the batch size; fixed ones stay. Open heights and widths of
    four-dimensional inputs become ``size_hw``, and open channels of the picture three: Optimum
    leaves them open as well.

    Raises:
        ShapeError: A dimension stays open, or the export fixes another size than ``size_hw``.
    """
    shapes = {}
    picture_seen = False
    for value in graph_inputs(model.graph):
        summary = input_summary(value)
        if summary is None:
            raise ShapeError(
                f"input {value.name!r} is no tensor of known rank; export it with its shape"
            )
        dims = list(summary.shape)
        if dims and dims[0] is None:
            dims[0] = batch_size
        # The size is that of the first picture; a further input may be fixed to its own.
        fixed = len(dims) == 4 and None not in [dims[axis] for axis in image_axes(summary.shape)]
        if len(dims) == 4 and size_hw is not None and not (picture_seen and fixed):
            if not picture_seen and dims[1] is None and image_axes(summary.shape) == (2, 3):
                dims[1] = 3
            picture_seen = True
            for axis, size in zip(image_axes(summary.shape), size_hw, strict=True):
                if dims[axis] is None:
                    dims[axis] = size
                elif dims[axis] != size:
                    raise ShapeError(
                        f"size {size_hw[0]}x{size_hw[1]} was asked for, but the export fixes "
                        f"input {value.name!r} to {summary}; leave the size away, or export "
                        "with dynamic height and width or at that size"
                    )
        if None in dims:
            how = "give --size HxW" if len(dims) == 4 else "export it with static shapes"
            raise ShapeError(f"input {value.name!r} is {summary}, with open dimensions; {how}")
        shapes[value.name] = tuple(int(dim or 0) for dim in dims)
    return shapes


def image_axes(shape: Sequence[int | None]) -> tuple[int, int]:
    """Returns the axes of height and width of a four-dimensional input, NCHW or NHWC."""
    channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    return (1, 2) if channels_last else (2, 3)


def with_input_shapes(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """Returns a copy with these input shapes and no other recorded shapes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        if value.name in shapes:
            value.type.tensor_type.shape.ClearField("dim")
            for dim in shapes[value.name]:
                value.type.tensor_type.shape.dim.add().dim_value = dim
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def specialise(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    limits: Limits,
    record: Callable[[Proof], object] | None = None,
) -> onnx.ModelProto:
    """Returns the simplified network at these input shapes, proven equal to the original.

    Where sizes depend on what the image shows they become bounds; see
    :mod:`tvmdet.frontend.bounded`.

    Args:
        model: The network.
        shapes: The shape of every input.
        limits: Bounds.
        record: Called with the proof of every rewrite.

    Raises:
        ShapeError: The network does not work at these shapes, or a value keeps an open
            dimension; names the node.
        UnsupportedOperatorError: An operator on open sizes is none that can be bounded.
        ModelError: The network cannot be simplified, or a value exceeds a limit.
    """
    static = with_input_shapes(model, shapes)
    _check_sizes(static, limits)
    # onnxslim empties the loop, so it goes first.
    static, cuts = cut_pasting(static)
    simple, bounded = _simplify(static, limits)
    names = [value.name for value in model.graph.output]
    known: dict[str, dict[str, np.ndarray]] = {}
    keep = None if bounded is None or bounded.before is not simple else known.__setitem__
    proofs = [prove_equal(SIMPLIFIED, static, simple, names, keep)]
    if bounded is not None:
        notes = (*cuts, *bounded.notes)
        proofs.append(prove_rows(bounded.before, replace(bounded, notes=notes), limits, known))
        simple = bounded.model
    if record is not None:
        for proof in proofs:
            record(proof)
    record_outputs(simple)
    return simple


def _simplify(static: onnx.ModelProto, limits: Limits) -> tuple[onnx.ModelProto, Bounded | None]:
    """Returns the simplified network, and that with every size bounded where images decide some.

    Raises:
        ShapeError: A shape cannot be known; names the node.
        UnsupportedOperatorError: An operator on open sizes is none that can be bounded.
    """
    simple = simplify(static)
    try:
        static_values(simple)
    except ShapeError:
        # ONNX's inference stops at longer computations of shapes, which ONNX Runtime can run.
        folded = fold_shape_values(simple)
        if folded is not None:
            simple = simplify(folded)
        try:
            static_values(simple)
        except ShapeError:
            if not depends_on_values(simple):
                raise
            bounded = bound_shapes(simple, limits)
            static_values(bounded.model)
            return simple, bounded
    return simple, None


def static_values(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every value of a network.

    Raises:
        ShapeError: The shapes contradict each other, or one cannot be known; names the node.
    """
    inferred = _infer(model)
    known: dict[str, tuple[int, ...]] = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        summary = value_summary(value)
        if summary is not None and None not in summary.shape:
            known[value.name] = tuple(int(dim or 0) for dim in summary.shape)
    known.update({tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer})
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                raise ShapeError(
                    f"the shape of {name!r}, an output of {describe(node)}, depends on the image "
                    "or cannot be inferred; export the model with fixed-size outputs, without "
                    "non-maximum suppression"
                )
    return known


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    reached("ONNX infers shapes")
    try:
        return infer_shapes(model, strict_mode=True, data_prop=True)
    except MemoryError as error:
        raise ModelError(_NO_MEMORY) from error
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        shapes = ", ".join(
            f"{value.name} {value_summary(value)}" for value in graph_inputs(model.graph)
        )
        node = re.search(r"op_type:\s*(\w+), node name:\s*([^)]*)\)", str(error))
        where = f"at node {node[2]!r} ({node[1]})" if node else first_line(error)
        raise ShapeError(
            f"the network does not fit together for {shapes}: {where}; heights and "
            "widths are usually multiples of 32: give another --size, or export at this size"
        ) from error


def _check_sizes(model: onnx.ModelProto, limits: Limits) -> None:
    """Refuses tensors too large for the limits, before anything allocates them."""
    for value in graph_inputs(model.graph):
        _check_size(value, limits)
    check_ranges(model, limits)
    reached("ONNX infers the sizes of tensors")
    check_shape_lengths(model)
    # With values ONNX writes out every element of a vector, so that long ones are refused before.
    for values in (False, True):
        try:
            inferred = infer_shapes(model, data_prop=values)
        except MemoryError as error:
            raise ModelError(_NO_MEMORY) from error
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
            return  # the strict inference after simplifying says what is wrong
        for value in (*inferred.graph.value_info, *inferred.graph.output):
            _check_size(value, limits)


def _check_size(value: onnx.ValueInfoProto, limits: Limits) -> None:
    summary = value_summary(value)
    if summary is None or None in summary.shape or summary.dtype == "unknown":
        return
    needed = math.prod(int(dim or 0) for dim in summary.shape) * np.dtype(summary.dtype).itemsize
    if needed > limits.max_tensor_bytes:
        raise ModelError(
            f"tensor {value.name!r} is {summary}: {needed} bytes; allowed: "
            f"{limits.max_tensor_bytes} (Limits.max_tensor_bytes); give a smaller --size or --batch"
        )
    if len(summary.shape) == 1 and summary.dtype in ("int32", "int64"):
        length = int(summary.shape[0] or 0)
        if length > _LONGEST_VECTOR:
            raise ModelError(
                f"tensor {value.name!r} is a row of {length} whole numbers; allowed: "
                f"{_LONGEST_VECTOR}; check the constants that sizes are computed from"
            )


def record_outputs(model: onnx.ModelProto) -> None:
    """Writes the inferred shapes into the outputs of a static network, in place.

    Raises:
        ShapeError: A shape cannot be known.
    """
    shapes = static_values(model)
    for value in model.graph.output:
        shape = value.type.tensor_type.shape
        shape.ClearField("dim")
        for dim in shapes[value.name]:
            shape.dim.add().dim_value = dim

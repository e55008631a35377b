"""Operators that treat every element alone, and those that treat every row alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.bounded.errors import blocked
from tvmdet.frontend.bounded.rewriter import Rewriter, rule
from tvmdet.frontend.bounded.values import Lanes, Symbol, Value

__all__ = ["align_axis", "aligned"]

# fmt: off
_ELEMENTWISE = (
    "Abs", "Acos", "Add", "And", "Asin", "Atan", "BitShift", "BitwiseAnd", "BitwiseNot",
    "BitwiseOr", "BitwiseXor", "Ceil", "Celu", "Clip", "Cos", "Cosh", "DequantizeLinear", "Div",
    "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid",
    "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min",
    "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "QuantizeLinear", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Xor",
)
# The first dimension is a batch, every entry of which is computed alone.
_ROWS = (
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace",
    "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN",
    "MaxPool", "Resize", "SpaceToDepth", "Upsample",
)
# fmt: on


def aligned(
    rw: Rewriter, node: onnx.NodeProto, values: Sequence[Value]
) -> tuple[list[Value], list[Symbol | None]]:
    """Brings broadcast operands to the same symbol in every dimension.

    Operands that carry different symbols have the same number of real rows, or the original
    network would fail: they are moved to the front in each.

    Returns:
        The operands, and the symbols of the result.
    """
    values = list(values)
    rank = max(value.rank for value in values)
    symbols = []
    for axis in range(rank):
        places = [axis - (rank - value.rank) for value in values]
        symbols.append(align_axis(rw, node, values, places))
    return values, symbols


def align_axis(
    rw: Rewriter, node: onnx.NodeProto, values: list[Value], places: Sequence[int]
) -> Symbol | None:
    """Brings one dimension of several operands to the same symbol, in place.

    Args:
        rw: The rewriter.
        node: The node that they are operands of.
        values: The operands, some of which are replaced.
        places: Which axis it is of each; negative where one has no such axis.

    Returns:
        The symbol.
    """
    there = [(index, at) for index, at in enumerate(places) if at >= 0]
    found = _symbols(values, there)
    fixed = [
        values[index].shape[at]
        for index, at in there
        if values[index].symbols[at] is None and values[index].shape[at] != 1
    ]
    if found and fixed:
        raise blocked(node, f"a dimension of {fixed[0]} meets one whose size depends on the image")
    if len(found) > 1:
        rows = min(symbol.bound for symbol in found)
        for index, at in there:
            if values[index].symbols[at] is not None:
                values[index] = rw.compacted(values[index], at, rows)
        found = _symbols(values, there)
    return next(iter(found), None)


def _symbols(values: Sequence[Value], there: Sequence[tuple[int, int]]) -> dict[Symbol, None]:
    symbols = (values[index].symbols[at] for index, at in there)
    return {symbol: None for symbol in symbols if symbol is not None}


@rule(*_ELEMENTWISE)
def _elementwise(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    kept = _row_of_flat(rw, node, inputs)
    if kept is not None:
        return kept
    given = [rw.numbers(value) for value in inputs if value is not None]
    given, symbols = aligned(rw, node, given)
    names = iter(rw.tensor(value) for value in given)
    operands = [next(names) if value is not None else "" for value in inputs]
    return [rw.value(name, symbols) for name in rw.emit.copy(node, operands)]


def _row_of_flat(
    rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]
) -> list[Value] | None:
    """Keeps positions in a flattened dimension positions: divided by the inner size, or its rest.

    The position of an entry of ``[B, C]`` flattened, divided by C, is its row; that holds for
    masked rows as it does for real ones.
    """
    if node.op_type not in ("Div", "Mod") or len(inputs) != 2:
        return None
    value, divisor = inputs
    if value is None or divisor is None or not isinstance(value.space, Symbol):
        return None
    array = rw.array(divisor)
    parts = value.space.parts
    if array is None or array.size != 1 or len(parts) != 2 or parts[1] != int(array.reshape(-1)[0]):
        return None
    if array.dtype.kind not in "iu" or not isinstance(parts[0], Symbol):
        return None
    name = rw.emit.copy(node, [rw.tensor(value), rw.tensor(divisor)])[0]
    rank = max(value.rank, array.ndim)
    symbols = [None] * (rank - value.rank) + list(value.symbols)
    space = parts[0] if node.op_type == "Div" and not parts[0].prefix else None
    return [rw.value(name, symbols, space=space, in_range=value.in_range)]


@rule("Cast", "Identity")
def _cast(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    value = inputs[0]
    assert value is not None
    name = rw.emit.copy(node, [rw.tensor(value)])[0]
    if np.dtype(onnx.helper.tensor_dtype_to_np_dtype(rw.emit.dtype(name))).kind not in "iu":
        value = rw.numbers(value)
        name = rw.emit.copy(node, [rw.tensor(value)])[0]
        return [rw.value(name, value.symbols)]
    return [
        rw.value(
            name,
            value.symbols,
            space=value.space,
            iota_axis=value.iota_axis,
            grid=value.grid,
            in_range=value.in_range,
        )
    ]


@rule("Where")
def _where(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    condition, left, right = inputs
    assert condition is not None
    assert left is not None
    assert right is not None
    same = left.space is right.space and not isinstance(left.space, Lanes)
    operands = [condition, left, right]
    if not same:
        operands = [condition, rw.numbers(left), rw.numbers(right)]
    operands, symbols = aligned(rw, node, operands)
    name = rw.emit.node("Where", *(rw.tensor(value) for value in operands))
    return [rw.value(name, symbols, space=left.space if same else None)]


@rule(*_ROWS)
def _rows(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    others = [value for value in inputs[1:] if value is not None]
    if any(data.symbols[1:]) or any(value.is_open for value in others):
        raise blocked(node, "a dimension other than the first depends on the image")
    names = [rw.tensor(value) if value is not None else "" for value in inputs]
    return [
        rw.value(name, [data.symbols[0], *[None] * (len(rw.emit.shape(name)) - 1)])
        for name in rw.emit.copy(node, names)
    ]


@rule("Softmax", "LogSoftmax", "LayerNormalization", "LpNormalization", "Hardmax")
def _along_axis(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data = inputs[0]
    assert data is not None
    axis = int(attribute(node, "axis", -1 if rw.emit.opset >= 13 else 1)) % data.rank
    whole = node.op_type == "LayerNormalization" or rw.emit.opset < 13
    touched = range(axis, data.rank) if whole else (axis,)
    name = rw.tensor(data)
    if any(data.symbols[at] for at in touched):
        if node.op_type not in ("Softmax", "LogSoftmax"):
            raise blocked(node, "it runs along a dimension whose size depends on the image")
        # The lowest finite number: a row without a single real entry must not become NaN.
        name = rw.filled(data, np.finfo(np.float32).min, list(touched))
    names = [name, *(rw.tensor(value) if value is not None else "" for value in inputs[1:])]
    results = rw.emit.copy(node, names)
    return [rw.value(results[0], data.symbols), *(rw.plain(other) for other in results[1:])]


@rule("MatMul")
def _matmul(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    left, right = inputs
    assert left is not None
    assert right is not None
    if left.rank < 2 or right.rank < 2:
        raise blocked(node, "a product of vectors whose size depends on the image")
    names = [rw.tensor(left), rw.tensor(right)]
    if left.symbols[-1] or right.symbols[-2]:
        if left.symbols[-1] is not right.symbols[-2]:
            raise blocked(node, "it sums over two dimensions that depend on the image differently")
        names = [rw.filled(left, 0, [left.rank - 1]), rw.filled(right, 0, [right.rank - 2])]
    name = rw.emit.node("MatMul", *names)
    rank = len(rw.emit.shape(name))
    lead: list[Symbol | None] = [None] * (rank - 2)
    for value in (left, right):
        for at, symbol in enumerate(value.symbols[:-2]):
            lead[rank - value.rank + at] = symbol or lead[rank - value.rank + at]
    return [rw.value(name, [*lead, left.symbols[-2], right.symbols[-1]])]


@rule("Gemm")
def _gemm(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    left, right = inputs[0], inputs[1]
    assert left is not None
    assert right is not None
    flipped = [bool(attribute(node, key, 0)) for key in ("transA", "transB")]
    row, inner = left.symbols[::-1] if flipped[0] else left.symbols
    inner_right, column = right.symbols[::-1] if flipped[1] else right.symbols
    if inner or inner_right:
        raise blocked(node, "it sums over a dimension whose size depends on the image")
    names = [rw.tensor(value) if value is not None else "" for value in inputs]
    return [rw.value(rw.emit.copy(node, names)[0], [row, column])]


@rule("RoiAlign")
def _roi_align(rw: Rewriter, node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    data, rois, batches = inputs
    assert data is not None
    assert rois is not None
    assert batches is not None
    if data.is_open or rois.symbols[1]:
        raise blocked(node, "its picture has a dimension that depends on the image")
    (rois, batches), _ = _same_rows(rw, node, rois, batches)
    names = [rw.tensor(data), rw.filled(rois, 0), rw.filled(batches, 0)]
    name = rw.emit.copy(node, names)[0]
    return [rw.value(name, [rois.symbols[0], None, None, None])]


def _same_rows(
    rw: Rewriter, node: onnx.NodeProto, rois: Value, batches: Value
) -> tuple[tuple[Value, Value], Symbol | None]:
    if rois.symbols[0] is batches.symbols[0]:
        return (rois, batches), rois.symbols[0]
    first, second = rois.symbols[0], batches.symbols[0]
    if first is None or second is None:
        raise blocked(node, "boxes and their images differ in number")
    rows = min(first.bound, second.bound)
    pair = rw.compacted(rois, 0, rows), rw.compacted(batches, 0, rows)
    return pair, pair[0].symbols[0]

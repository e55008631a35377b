"""Integer operators (QOperator files) as those of floats between pairs.

An integer operator says what its integers mean: ``QLinearConv`` has the steps of its picture, its
weights and its result among its inputs. It computes what the operator of floats between
DequantizeLinear and QuantizeLinear does, but for a sum that lies on the edge of a step. Sources:
the standard's QLinearConv and QLinearMatMul, and ONNX Runtime's ``docs/ContribOperators.md`` for
those of the domain ``com.microsoft``, which its quantiser writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tvmdet.errors import ModelError
from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.infer_shapes import element_types
from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, constants_of, describe, drop_domains
from tvmdet.frontend.prove import TOLERANCE, probes
from tvmdet.frontend.quantised.names import Names
from tvmdet.frontend.quantised.pairs import read_pair
from tvmdet.frontend.quantised.steps import RANGES
from tvmdet.frontend.quantised.unsaturated import with_unsigned_weights
from tvmdet.frontend.quantised.watch import Watch
from tvmdet.frontend.quantised.writer import Integers, PairWriter

__all__ = ["PAIRED", "has_integer_operators", "integers_left_out", "write_pairs"]

PAIRED = "integer operators written as operators of floats between pairs"

_MICROSOFT = "com.microsoft"

_ROUNDED = 0.6
"""Steps between a float and its integer: half of one, and a tenth for sums of floats."""

_GEMM_OPERANDS = 3

_SHORT_GEMM = 11
"""The opset from which Gemm does without something to add."""

_ONE_AXIS = 13
"""The opset from which Softmax is along its axis; before, along that and all later ones."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Where an integer operator has what, and what it is between pairs.

    Attributes:
        operator: That of floats.
        values: The inputs that are integers, each before its steps and zero point.
        result: The input that has the steps of the result, before its zero point.
        floats: Inputs that are no integers, the first ones of that of floats.
        bias: The input of the type int32, which is added to the product of both values.
        axis: Of the last value, the weights: the axis that may have steps; None where none may.
        may_be_float: Whether the result is a float where its steps are left away.
        rounded: How many steps the integer of a result may be from the float.
        attributes: Those of the operator of floats; None where it has no such.
    """

    operator: str
    values: tuple[int, ...]
    result: int
    floats: tuple[int, ...] = ()
    bias: int | None = None
    axis: Callable[[onnx.NodeProto], int] | None = None
    may_be_float: bool = False
    rounded: float = _ROUNDED
    attributes: Callable[[onnx.NodeProto, int], Sequence[onnx.AttributeProto] | None] = (
        lambda node, _opset: list(node.attribute)
    )


def has_integer_operators(model: onnx.ModelProto) -> bool:
    """Returns whether a model has operators that :func:`write_pairs` may write."""
    return any(_form(node) is not None for node in model.graph.node)


def write_pairs(model: onnx.ModelProto) -> int:
    """Writes integer operators as those of floats between pairs, in place.

    Args:
        model: A checked model, every node named.

    Returns:
        How many were written. One whose steps are not known stays.
    """
    writer, types = PairWriter(model), element_types(model)
    count = 0
    for node in model.graph.node:
        form = _form(node)
        if form is not None and _write(writer, node, form, types):
            count += 1
        else:
            writer.keep(node)
    writer.finish()
    drop_domains(model)
    return count


def integers_left_out(integers: onnx.ModelProto, paired: onnx.ModelProto) -> str:
    """Checks every operator that was written between pairs, and says what was done, for people.

    Within the network of integers, what an operator gives lies no further than half a step from
    what that of floats gives for the same integers, but for the rounding of sums of floats.

    Args:
        integers: The network with integer operators, its inputs of static shapes.
        paired: What :func:`write_pairs` made of it.

    Raises:
        ModelError: An operator gives something else, or ONNX Runtime cannot run the network.
    """
    watch = Watch(model=with_unsigned_weights(integers), other=paired)
    names = Names(paired.graph)
    constants, types = constants_of(paired.graph), element_types(paired)
    makers = {name: node for node in paired.graph.node for name in node.output}
    written = [node for node in integers.graph.node if _form(node) is not None]
    written = [node for node in written if _form(makers[node.output[0]]) is None]
    for node in written:
        form, result = _form(node), node.output[0]
        assert form is not None
        made, now = makers[result], names.fresh(f"{result}_now")
        if made.op_type != "QuantizeLinear":  # its result is a float
            again = onnx.NodeProto.FromString(made.SerializeToString())
            again.output[0] = now
            watch.take([again])
            watch.compare_sizes(result, now, TOLERANCE)
            continue
        was = names.fresh(f"{result}_was")
        back = helper.make_node("DequantizeLinear", [result, *made.input[1:]], [was], name=was)
        pair = read_pair(back, made, constants, types)
        if pair is None:
            raise ModelError(
                f"{describe(node)} cannot be compared with its operator of floats: the type of its "
                "result cannot be inferred; check the model with "
                "onnx.checker.check_model(model, full_check=True) and export it again"
            )
        watch.take([back, makers[made.input[0]]])
        now = watch.limit(made.input[0], pair.least, pair.greatest)
        watch.compare(was, now, pair.furthest(form.rounded))
    watch.run(list(probes(integers).values()), "what its integers mean than their rounding")
    kinds = ", ".join(sorted({node.op_type for node in written}))
    many = "operators" if len(written) > 1 else "operator"
    return (
        f"{len(written)} integer {many} ({kinds}) taken as of floats; each by itself gives in ONNX "
        "Runtime what it gave, but for the rounding to its steps"
    )


def _form(node: onnx.NodeProto) -> _Form | None:
    if len(node.output) != 1:
        return None
    standard = node.domain in DEFAULT_DOMAINS
    return _FORMS.get(("" if standard else node.domain, node.op_type))


def _write(writer: PairWriter, node: onnx.NodeProto, form: _Form, types: Mapping[str, int]) -> bool:
    """Writes a node as one of floats between pairs, and returns whether it could."""
    attributes = form.attributes(node, writer.opset)
    result = _result(writer, node, form, types)
    inputs = _inputs(writer, node, form)
    if attributes is None or result is None or inputs is None:
        return False
    if not any(result):
        writer.add(form.operator, inputs, node.output[0], attributes, name=node.name)
        return True
    value = writer.fresh(f"{node.output[0]}_before")
    writer.add(form.operator, inputs, value, attributes, name=node.name)
    steps = [value, *(one for one in result if one)]
    writer.add("QuantizeLinear", steps, node.output[0], name=writer.fresh(f"{node.name}_result"))
    return True


def _inputs(writer: PairWriter, node: onnx.NodeProto, form: _Form) -> list[str] | None:
    """Writes what the operands of a node mean; None where that is not known."""
    values = [_integers(node, at) for at in form.values or range(2, len(node.input), 3)]
    axes: list[int | None] = [None] * len(values)
    if form.axis is not None:
        axes[-1] = form.axis(node)
    floats = [writer.floats(one, axis) for one, axis in zip(values, axes, strict=True)]
    if form.bias is not None and _input(node, form.bias):
        alpha = attribute(node, "alpha", 1.0)
        floats.append(_bias(writer, _input(node, form.bias), values, alpha))
    found = [one for one in floats if one is not None]
    if not all(whole for whole, *_ in values):
        return None
    if form.operator == "Gemm" and len(floats) < _GEMM_OPERANDS and writer.opset < _SHORT_GEMM:
        return None
    kept = [_input(node, at) for at in form.floats]
    return [*kept, *found] if found and len(found) == len(floats) else None


def _bias(writer: PairWriter, bias: str, values: Sequence[Integers], alpha: float) -> str | None:
    """Writes what a bias means: its steps are those of picture and weights, and alpha, multiplied.

    ONNX Runtime's QGemm adds it to the sum of integers, and takes alpha times both.
    """
    steps, stored = [writer.steps(one) for one in values], writer.constants.get(bias)
    first, second = steps
    if first is None or second is None or stored is None or first.scale.size != 1:
        return None
    if not isinstance(alpha, float):
        return None
    product = np.float32(alpha) * first.scale.reshape(()) * second.scale
    if product.size == 1:
        product = product.reshape(())
    scale = writer.constant(product.astype(np.float32), f"{bias}_scale")
    return writer.floats((bias, scale, ""), axis=-1)


def _result(
    writer: PairWriter, node: onnx.NodeProto, form: _Form, types: Mapping[str, int]
) -> tuple[str, str] | None:
    """Returns steps and zero point of the result; nothing twice for a float; None if not known."""
    scale, zero = _input(node, form.result), _input(node, form.result + 1)
    if not scale:
        return ("", "") if form.may_be_float else None
    steps = writer.steps(("", scale, zero))
    if steps is None or steps.scale.size != 1:
        return None
    if not zero:
        kind = _integer_type(writer, node, form, types)
        if kind not in RANGES:
            return None
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        zero = writer.constant(np.zeros((), dtype), f"{scale}_zero")
    return scale, zero


def _integer_type(
    writer: PairWriter, node: onnx.NodeProto, form: _Form, types: Mapping[str, int]
) -> int:
    """Returns the type of the first operand, which is that of a result without a zero point."""
    value, _, zero = _integers(node, (form.values or (2,))[0])
    stored = writer.constants.get(zero)
    return types.get(value, TensorProto.UNDEFINED) if stored is None else stored.data_type


def _integers(node: onnx.NodeProto, place: int) -> Integers:
    return _input(node, place), _input(node, place + 1), _input(node, place + 2)


def _input(node: onnx.NodeProto, place: int) -> str:
    return node.input[place] if place < len(node.input) else ""


def _pool_attributes(node: onnx.NodeProto, _opset: int) -> Sequence[onnx.AttributeProto] | None:
    """Returns the attributes of a pool; None where channels are last, which no standard one has."""
    if attribute(node, "channels_last", 0):
        return None
    return [one for one in node.attribute if one.name != "channels_last"]


def _softmax_attributes(node: onnx.NodeProto, opset: int) -> Sequence[onnx.AttributeProto] | None:
    """Returns the axis; None where the node is of an opset that means another thing by it."""
    said = attribute(node, "opset", opset)
    if not isinstance(said, int) or (said < _ONE_AXIS) != (opset < _ONE_AXIS):
        return None
    return [helper.make_attribute("axis", attribute(node, "axis", -1))]


def _columns_axis(node: onnx.NodeProto) -> int:
    return 0 if attribute(node, "transB", 0) else 1


_FORMS: dict[tuple[str, str], _Form] = {
    ("", "QLinearConv"): _Form(
        operator="Conv", values=(0, 3), result=6, bias=8, axis=lambda _node: 0
    ),
    ("", "QLinearMatMul"): _Form(operator="MatMul", values=(0, 3), result=6, axis=lambda _node: -1),
    (_MICROSOFT, "QGemm"): _Form(
        operator="Gemm", values=(0, 3), result=7, bias=6, axis=_columns_axis, may_be_float=True
    ),
    (_MICROSOFT, "QLinearAdd"): _Form(operator="Add", values=(0, 3), result=6),
    (_MICROSOFT, "QLinearAveragePool"): _Form(
        operator="AveragePool", values=(0,), result=3, attributes=_pool_attributes
    ),
    (_MICROSOFT, "QLinearConcat"): _Form(operator="Concat", values=(), result=0),
    (_MICROSOFT, "QLinearGlobalAveragePool"): _Form(
        operator="GlobalAveragePool", values=(0,), result=3, attributes=_pool_attributes
    ),
    (_MICROSOFT, "QLinearLeakyRelu"): _Form(operator="LeakyRelu", values=(0,), result=3),
    (_MICROSOFT, "QLinearMul"): _Form(operator="Mul", values=(0, 3), result=6),
    (_MICROSOFT, "QLinearSigmoid"): _Form(operator="Sigmoid", values=(0,), result=3),
    (_MICROSOFT, "QLinearSoftmax"): _Form(
        operator="Softmax", values=(0,), result=3, rounded=1.5, attributes=_softmax_attributes
    ),
    (_MICROSOFT, "QLinearWhere"): _Form(operator="Where", values=(1, 4), result=7, floats=(0,)),
}
"""Integer operators by domain and type. One without ``values`` has them in threes from input 2.

ONNX Runtime's QLinearSoftmax counts steps as if a whole number of them made 1, and is a step off
where none does."""

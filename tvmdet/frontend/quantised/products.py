"""Integer products of dynamic files as products of floats between pairs.

ONNX Runtime's ``quantize_dynamic`` rounds the picture of each product to 255 steps of what it spans
(DynamicQuantizeLinear), multiplies integers (ConvInteger, MatMulInteger), and takes the result
times the steps of picture and weights. That is the product of what the integers mean, to within
the rounding of floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.prove import TOLERANCE, Proof, probes
from tvmdet.frontend.quantised.names import Names
from tvmdet.frontend.quantised.steps import drop_unread_nodes, is_node
from tvmdet.frontend.quantised.unsaturated import with_unsigned_weights
from tvmdet.frontend.quantised.watch import Watch
from tvmdet.frontend.quantised.writer import PairWriter

__all__ = ["MULTIPLIED", "prove_products", "write_products"]

MULTIPLIED = "integer products written as products of what the integers mean"

_PRODUCTS: dict[str, tuple[str, int | None]] = {
    "ConvInteger": ("Conv", None),
    "MatMulInteger": ("MatMul", -1),
}
"""The product of floats, and the axis of the weights that may have steps.

Steps in a row multiply along the last axis, which is that of a convolution's columns."""

_Makers = Mapping[str, onnx.NodeProto]


@dataclass(frozen=True, kw_only=True)
class _Product:
    """A product of integers that is taken times its steps.

    Attributes:
        node: The product.
        quantiser: What makes the integers of the picture.
        scale: The steps of the weights.
    """

    node: onnx.NodeProto
    quantiser: onnx.NodeProto
    scale: str


def write_products(model: onnx.ModelProto) -> int:
    """Writes products of integers as those of what the integers mean, in place.

    Args:
        model: A checked model of opset 11 or later, every node named.

    Returns:
        How many were written. One whose steps are not known stays.
    """
    writer, makers = PairWriter(model), _makers(model.graph)
    spent: set[str] = set()
    count = 0
    for node in model.graph.node:
        product = _product(node, makers)
        if product is None or not _write(writer, node, product):
            writer.keep(node)
            continue
        count += 1
        spent.update((*node.input, *product.node.output))
    if count:
        writer.finish()
        drop_unread_nodes(model.graph, spent)
    return count


def prove_products(integers: onnx.ModelProto, written: onnx.ModelProto) -> Proof:
    """Compares products with those of floats, each by itself for the same integers.

    Args:
        integers: The network with products of integers, its inputs of static shapes.
        written: What :func:`write_products` made of it.

    Raises:
        ModelError: A product is another, or ONNX Runtime cannot run the network.
    """
    watch = Watch(model=with_unsigned_weights(integers), other=written)
    names = Names(written.graph)
    makers, now = _makers(integers.graph), _makers(written.graph)
    for node in integers.graph.node:
        result = node.output[0]
        if _product(node, makers) is None or now[result].op_type == node.op_type:
            continue
        made = onnx.NodeProto.FromString(now[result].SerializeToString())
        made.output[0] = names.fresh(f"{result}_now")
        watch.take([made])
        watch.compare_sizes(result, made.output[0], TOLERANCE)
    feeds = probes(integers)
    watch.run(list(feeds.values()), "the product of its integers than floats round")
    return Proof(rewrite=MULTIPLIED, differences=watch.largest, inputs=tuple(feeds))


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _product(node: onnx.NodeProto, makers: _Makers) -> _Product | None:
    """Returns the product of integers that a Mul takes times its steps; None if there is none."""
    for first, second in _operands(node, makers):
        if first is None or second is None or not is_node(first, "Cast"):
            continue
        product = makers.get(first.input[0])
        if product is None or not any(is_node(product, one) for one in _PRODUCTS):
            continue
        quantiser = makers.get(product.input[0])
        if attribute(first, "to", 0) != TensorProto.FLOAT or not _is_of(product, quantiser):
            continue
        assert quantiser is not None
        for place, (maker, _) in enumerate(_operands(second, makers)):
            if maker is quantiser and second.input[place] == quantiser.output[1]:
                scale = second.input[1 - place]
                return _Product(node=product, quantiser=quantiser, scale=scale)
    return None


def _operands(
    node: onnx.NodeProto, makers: _Makers
) -> list[tuple[onnx.NodeProto | None, onnx.NodeProto | None]]:
    """Returns what makes the operands of a Mul, in both orders."""
    if not is_node(node, "Mul") or len(node.input) != 2:
        return []
    first, second = (makers.get(name) for name in node.input)
    return [(first, second), (second, first)]


def _is_of(product: onnx.NodeProto, quantiser: onnx.NodeProto | None) -> bool:
    """Returns whether a product is one of a picture's integers, with their zero point."""
    if quantiser is None or not is_node(quantiser, "DynamicQuantizeLinear"):
        return False
    return list(product.input[:3:2]) == list(quantiser.output[::2])


def _write(writer: PairWriter, node: onnx.NodeProto, product: _Product) -> bool:
    """Writes a product as one of floats, and returns whether it could."""
    operator, axis = _PRODUCTS[product.node.op_type]
    zero = product.node.input[3] if len(product.node.input) > 3 else ""
    weights = writer.floats((product.node.input[1], product.scale, zero), axis)
    if weights is None:
        return False
    whole, scale, start = product.quantiser.output
    picture = writer.dequantise((whole, scale, start))
    # The product may stay, or be taken twice: its name is taken.
    attributes, name = product.node.attribute, writer.fresh(product.node.name)
    writer.add(operator, [picture, weights], node.output[0], attributes, name=name)
    return True

"""Of a product with a transposed factor the smaller one is transposed; the numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from relax_nets import one_function
from tvm import relax

from tvmdet.passes.relax_tools import is_call_to, static_shape
from tvmdet.passes.turn_products import TurnProducts

RNG = np.random.default_rng(0)
VALUES, WEIGHTS = (1, 2, 3, 20), (1, 2, 20, 20)


def _transposed_shapes(module: Any) -> list[tuple[int, ...]]:
    return [
        static_shape(binding.value.args[0])
        for block in module["main"].body.blocks
        for binding in block.bindings
        if is_call_to(binding.value, "relax.permute_dims")
    ]


def test_the_weights_of_attention_stay_where_they_are() -> None:
    def emit(builder: relax.BlockBuilder, values: Any, weights: Any) -> Any:
        turned = builder.emit(relax.op.permute_dims(weights, [0, 1, 3, 2]))
        return relax.op.matmul(values, turned)

    module = one_function([(VALUES, "float32"), (WEIGHTS, "float32")], emit)
    assert _transposed_shapes(module) == [WEIGHTS]
    turned = TurnProducts()(module)
    assert _transposed_shapes(turned) == [VALUES, (1, 2, 20, 3)]
    values, weights = (RNG.standard_normal(s).astype("float32") for s in (VALUES, WEIGHTS))
    (got,) = onnx_models.run_relax(turned, values, weights)
    assert_close(got, values @ weights.swapaxes(2, 3), rtol=1e-5, atol=1e-5)


def test_sums_keep_their_type() -> None:
    def emit(builder: relax.BlockBuilder, values: Any, weights: Any) -> Any:
        turned = builder.emit(relax.op.permute_dims(weights, [0, 1, 3, 2]))
        return relax.op.matmul(values, turned, "float32")

    turned = TurnProducts()(one_function([(VALUES, "float16"), (WEIGHTS, "float16")], emit))
    assert _transposed_shapes(turned)[0] == VALUES
    assert str(turned["main"].ret_ty.dtype) == "float32"


def test_a_transposition_that_another_reads_is_not_made_twice() -> None:
    def emit(builder: relax.BlockBuilder, values: Any, weights: Any) -> Any:
        turned = builder.emit(relax.op.permute_dims(weights, [0, 1, 3, 2]))
        product = builder.emit(relax.op.matmul(values, turned))
        return relax.op.concat([product, turned], axis=2)

    module = one_function([(VALUES, "float32"), (WEIGHTS, "float32")], emit)
    assert _transposed_shapes(TurnProducts()(module)) == [WEIGHTS]


@pytest.mark.parametrize(
    ("left", "right", "axes"),
    [
        pytest.param((2, 20, 3), (2, 20, 3), [0, 2, 1], id="scores, larger than both"),
        pytest.param((3, 20), (2, 20, 20), [0, 2, 1], id="fewer axes"),
        pytest.param((2, 3, 20), (20, 2, 20), [1, 2, 0], id="another order of axes"),
        pytest.param((2, 3, 20), (2, 20, 20), None, id="nothing transposed"),
    ],
)
def test_others_stay(left: tuple[int, ...], right: tuple[int, ...], axes: list[int] | None) -> None:
    def emit(builder: relax.BlockBuilder, x: Any, y: Any) -> Any:
        factor = y if axes is None else builder.emit(relax.op.permute_dims(y, axes))
        return relax.op.matmul(x, factor)

    module = one_function([(left, "float32"), (right, "float32")], emit)
    assert _transposed_shapes(TurnProducts()(module)) == _transposed_shapes(module)

"""Products with constants become convolutions; the numbers stay."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from relax_nets import one_function, operators
from tvm import relax

from tvmdet.passes.rewrite_dense import RewriteDense

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((7, 5)).astype("float32")
BIAS = RNG.standard_normal(5).astype("float32")


@pytest.mark.parametrize("shape", [(1, 7), (3, 7), (2, 4, 7), (2, 1, 3, 7)])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_layers(shape: tuple[int, ...], biased: bool) -> None:
    def emit(builder: relax.BlockBuilder, x: relax.Expr) -> relax.Expr:
        product = builder.emit(relax.op.matmul(x, relax.const(WEIGHT)))
        return relax.op.add(product, relax.const(BIAS)) if biased else product

    rewritten = RewriteDense()(one_function([(shape, "float32")], emit))
    counts = operators(rewritten)
    assert counts["nn.conv2d"] == 1 and counts["matmul"] == 0
    data = RNG.standard_normal(shape).astype("float32")
    (got,) = onnx_models.run_relax(rewritten, data)
    assert_close(got, data @ WEIGHT + (BIAS if biased else 0), rtol=1e-5, atol=1e-5)


def test_products_of_two_activations_stay() -> None:
    module = one_function(
        [((2, 3, 7), "float32"), ((2, 7, 4), "float32")], lambda _, x, y: relax.op.matmul(x, y)
    )
    assert operators(RewriteDense()(module))["matmul"] == 1


def test_an_addition_that_is_no_bias_stays_where_it_is() -> None:
    def emit(builder: relax.BlockBuilder, x: relax.Expr) -> relax.Expr:
        product = builder.emit(relax.op.matmul(x, relax.const(WEIGHT)))
        return relax.op.add(product, relax.const(np.ones((3, 1), "float32")))

    data = RNG.standard_normal((3, 7)).astype("float32")
    (got,) = onnx_models.run_relax(RewriteDense()(one_function([((3, 7), "float32")], emit)), data)
    assert_close(got, data @ WEIGHT + 1, rtol=1e-5, atol=1e-5)

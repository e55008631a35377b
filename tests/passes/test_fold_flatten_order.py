"""Flattened pictures keep their order, and the weights get it; the numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from relax_nets import one_function, operators
from tvm import relax

from tvmdet.passes.fold_flatten_order import FoldFlattenOrder

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((5, 1, 1, 24)).astype("float32")
TO_NCHW = (0, 3, 1, 2)


def _linear(builder: relax.BlockBuilder, x: Any, shapes: list[tuple[int, ...]]) -> Any:
    for shape in shapes:
        x = builder.emit(relax.op.reshape(x, shape))
    return relax.op.nn.conv2d(x, relax.const(WEIGHT), data_layout="NHWC", kernel_layout="OHWI")


@pytest.mark.parametrize(
    ("shape", "axes", "shapes", "folded"),
    [
        pytest.param((6, 2, 3, 4), TO_NCHW, [(6, 24), (1, 2, 3, 24)], True, id="two reshapes"),
        pytest.param((6, 2, 3, 4), TO_NCHW, [(6, 1, 1, 24)], True, id="one reshape"),
        pytest.param((1, 2, 3, 4), TO_NCHW, [(1, 24), (1, 1, 1, 24)], True, id="one picture"),
        pytest.param((6, 4, 2, 3), (0, 2, 1, 3), [(1, 6, 1, 24)], True, id="another order"),
        pytest.param((6, 4, 6), (0, 2, 1), [(1, 6, 1, 24)], True, id="one axis less"),
        pytest.param((2, 3, 6, 4), (2, 0, 1, 3), [(1, 6, 1, 24)], False, id="other items"),
        pytest.param((3, 2, 6, 8), TO_NCHW, [(1, 4, 3, 24)], False, id="parts of items"),
    ],
)
def test_flattened_pictures(
    shape: tuple[int, ...], axes: tuple[int, ...], shapes: list[tuple[int, ...]], folded: bool
) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        return _linear(builder, builder.emit(relax.op.permute_dims(x, axes)), shapes)

    module = one_function([(shape, "float32")], emit)
    rewritten = FoldFlattenOrder()(module)
    assert operators(rewritten)["permute_dims"] == (0 if folded else 1)
    data = RNG.standard_normal(shape).astype("float32")
    flat = data.transpose(axes).reshape(shapes[-1])
    (got,) = onnx_models.run_relax(rewritten, data)
    assert_close(got, flat @ WEIGHT[:, 0, 0].T, rtol=1e-5, atol=1e-5)


def test_others_that_read_the_picture_in_the_other_order_keep_it() -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        moved = builder.emit(relax.op.permute_dims(x, TO_NCHW))
        product = builder.emit(_linear(builder, moved, [(6, 1, 1, 24)]))
        return relax.Tuple([product, builder.emit(relax.op.exp(moved))])

    rewritten = FoldFlattenOrder()(one_function([((6, 2, 3, 4), "float32")], emit))
    data = RNG.standard_normal((6, 2, 3, 4)).astype("float32")
    product, other = onnx_models.run_relax(rewritten, data)
    moved = data.transpose(TO_NCHW)
    assert_close(product, moved.reshape(6, 1, 1, 24) @ WEIGHT[:, 0, 0].T, rtol=1e-5, atol=1e-5)
    assert_close(other, np.exp(moved), rtol=1e-5, atol=1e-6)

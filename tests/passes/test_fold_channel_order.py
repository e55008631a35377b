"""The channel order of a picture moves into the weights of the first convolution."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from relax_nets import one_function, operators
from tvm import relax

from tvmdet.passes.attach_head import emit_normalize
from tvmdet.passes.fold_channel_order import FoldChannelOrder
from tvmdet.spec import InputSpec

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3, 3, 3)).astype("float32")


@pytest.mark.parametrize("order", [[2, 1, 0], [1, 2, 0], [0, 1, 2]])
def test_reordered_channels(order: list[int]) -> None:
    def emit(builder: relax.BlockBuilder, x: relax.Expr) -> relax.Expr:
        indices = relax.const(np.array(order, "int64"))
        taken = builder.emit(relax.op.take(x, indices, axis=1, mode="clip"))
        return relax.op.nn.conv2d(taken, relax.const(WEIGHT))

    module = one_function([((1, 3, 6, 5), "float32")], emit)
    folded = FoldChannelOrder()(module)
    assert operators(folded)["take"] == 0
    data = RNG.standard_normal((1, 3, 6, 5)).astype("float32")
    (before,), (after,) = (onnx_models.run_relax(m, data) for m in (module, folded))
    assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_a_repeated_channel_is_not_folded() -> None:
    def emit(builder: relax.BlockBuilder, x: relax.Expr) -> relax.Expr:
        indices = relax.const(np.array([0, 0, 1], "int64"))
        taken = builder.emit(relax.op.take(x, indices, axis=1, mode="clip"))
        return relax.op.nn.conv2d(taken, relax.const(WEIGHT))

    folded = FoldChannelOrder()(one_function([((1, 3, 6, 5), "float32")], emit))
    assert operators(folded)["take"] == 1


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_normalisation(color: str) -> None:
    mean, std = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
    spec = InputSpec(size_hw=(5, 7), color=color, mean=mean, std=std)
    module = one_function(
        [((2, 5, 7, 3), "uint8")], lambda builder, x: emit_normalize(builder, x, spec)
    )
    pixels = RNG.integers(0, 256, (2, 5, 7, 3), np.uint8)
    (got,) = onnx_models.run_relax(module, pixels)
    seen = (pixels[..., ::-1] if color == "rgb" else pixels).astype("float64")
    expected = ((seen - mean) / std).transpose(0, 3, 1, 2)
    assert_close(got, expected.astype("float32"), rtol=1e-5, atol=1e-5)

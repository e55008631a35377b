"""A value times its own sigmoid becomes SiLU, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_models
import pytest
from assertions import assert_close
from relax_nets import one_function, operators
from scheduled_kernels import only_kernel
from tvm import relax
from tvmdet.targets import get_target

from tvmdet.passes.fold_silu import FoldSilu

SHAPE = (1, 4, 5, 8)
DATA = np.random.default_rng(0).normal(0, 4, SHAPE).astype("float32")
GATE = 1 / (1 + np.exp(-DATA.astype(np.float64)))


def _gated(builder: relax.BlockBuilder, x: Any) -> Any:
    return builder.emit(relax.op.multiply(x, builder.emit(relax.op.sigmoid(x))))


def _gate_first(builder: relax.BlockBuilder, x: Any) -> Any:
    return builder.emit(relax.op.multiply(builder.emit(relax.op.sigmoid(x)), x))


def _gate_read_twice(builder: relax.BlockBuilder, x: Any) -> Any:
    gate = builder.emit(relax.op.sigmoid(x))
    return builder.emit(relax.op.add(builder.emit(relax.op.multiply(x, gate)), gate))


def _gate_of_another(builder: relax.BlockBuilder, x: Any) -> Any:
    other = builder.emit(relax.op.negative(x))
    return builder.emit(relax.op.multiply(x, builder.emit(relax.op.sigmoid(other))))


def _gate_squared(builder: relax.BlockBuilder, x: Any) -> Any:
    gate = builder.emit(relax.op.sigmoid(x))
    return builder.emit(relax.op.multiply(gate, gate))


CASES: list[tuple[str, Callable[..., Any], dict[str, int], np.ndarray]] = [
    ("as exported", _gated, {"nn.silu": 1}, DATA * GATE),
    ("the gate first", _gate_first, {"nn.silu": 1}, DATA * GATE),
    ("the gate is read again", _gate_read_twice, {"nn.silu": 1, "sigmoid": 1}, DATA * GATE + GATE),
    ("another's gate", _gate_of_another, {"sigmoid": 1, "multiply": 1}, DATA * (1 - GATE)),
    ("a gate times itself", _gate_squared, {"sigmoid": 1, "multiply": 1}, GATE**2),
]


@pytest.mark.parametrize(
    ("emit", "left", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_is_folded(emit: Callable[..., Any], left: dict[str, int], wanted: np.ndarray) -> None:
    module = FoldSilu()(one_function([(SHAPE, "float32")], emit))
    found = operators(module)
    assert {name: found[name] for name in ("nn.silu", "sigmoid", "multiply") if found[name]} == left
    (got,) = onnx_models.run_relax(module, DATA)
    assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_it_is_part_of_the_convolution_before_it() -> None:
    weight = np.random.default_rng(1).standard_normal((8, 1, 1, 8)).astype("float32")

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        conv = relax.op.nn.conv2d(x, relax.const(weight), data_layout="NHWC", kernel_layout="OHWI")
        return _gated(builder, builder.emit(conv))

    kernel = only_kernel(emit, [DATA], get_target("x86-64-v3"))
    assert kernel.template.name == "x86.conv2d_nhwc"

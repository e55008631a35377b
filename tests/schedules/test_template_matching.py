"""Which template takes which function, and what it does when an epilogue changes the shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from assertions import assert_close
from scheduled_kernels import Emit, conv2d_reference, kernels_of, only_kernel, run_decisions
from tvm import relax
from tvmdet.targets import Target

# Shape of the convolution's picture, filters, and a second operand that is larger than its result.
GATES = {
    "squeeze-excite of one pixel": ((1, 1, 1, 16), 16, (1, 5, 7, 16)),
    "gate of one row": ((1, 1, 1, 16), 16, (1, 1, 19, 16)),
    "gate of one row, odd filters": ((1, 1, 1, 9), 17, (1, 1, 5, 17)),
    "gate of one column": ((1, 1, 1, 16), 16, (1, 19, 1, 16)),
}

# FuseOps fuses these broadcasts all the same.
LARGER = {
    "attention map over channels": ((1, 6, 7, 16), 1, (1, 6, 7, 32)),
    "attention map over odd channels": ((1, 6, 7, 8), 1, (1, 6, 7, 9)),
    "one image for a batch": ((1, 6, 7, 16), 16, (3, 6, 7, 16)),
    "a row for every row": ((1, 1, 7, 16), 16, (1, 6, 7, 16)),
    "five axes": ((1, 4, 5, 16), 16, (2, 1, 4, 5, 16)),
}


ALGORITHMS = pytest.mark.parametrize(
    ("kernel_side", "algorithm"), [(1, "direct"), (3, "direct"), (3, "winograd4")]
)


@dataclass(frozen=True)
class Product:
    """A convolution multiplied with a larger operand, and the right answer."""

    emit: Emit
    inputs: list[np.ndarray]
    expected: np.ndarray


def _product(case: tuple[tuple[int, ...], int, tuple[int, ...]], kernel_side: int) -> Product:
    shape, filters, operand_shape = case
    rng = np.random.default_rng(0)
    data = rng.standard_normal(shape).astype("float32")
    operand = rng.standard_normal(operand_shape).astype("float32")
    weight = rng.standard_normal((filters, kernel_side, kernel_side, shape[3])).astype("float32")
    pad = (kernel_side // 2,) * 4

    def emit(builder: relax.BlockBuilder, x: Any, other: Any) -> Any:
        conv = relax.op.nn.conv2d(
            x, relax.const(weight), padding=pad, data_layout="NHWC", kernel_layout="OHWI"
        )
        return builder.emit(relax.op.multiply(builder.emit(conv), other))

    expected = conv2d_reference(data, weight, padding=pad) * operand
    return Product(emit, [data, operand], expected)


@ALGORITHMS
@pytest.mark.parametrize("name", GATES)
def test_a_gate_stays_apart_from_its_convolution(
    name: str, kernel_side: int, algorithm: str, target: Target
) -> None:
    product = _product(GATES[name], kernel_side)
    conv, gate = kernels_of(product.emit, product.inputs, target, algorithm)
    assert conv.template.name.startswith("x86.")
    assert gate.template.name == "common.elementwise"
    chosen = [conv.decisions[i] for i in sorted({0, len(conv.decisions) - 1})]
    data, operand = product.inputs
    for decision in chosen:
        ((made,),) = run_decisions(conv, [decision], target, {0: data})
        ((result,),) = run_decisions(gate, gate.decisions[:1], target, {0: made, 1: operand})
        assert_close(result, product.expected, rtol=1e-4, atol=2e-3, name=str(decision))


@ALGORITHMS
@pytest.mark.parametrize("name", LARGER)
def test_an_epilogue_larger_than_the_convolution(
    name: str, kernel_side: int, algorithm: str, target: Target
) -> None:
    product = _product(LARGER[name], kernel_side)
    kernel = only_kernel(product.emit, product.inputs, target, algorithm)
    chosen = [kernel.decisions[i] for i in sorted({0, len(kernel.decisions) - 1})]
    for decision, (result,) in zip(chosen, run_decisions(kernel, chosen, target), strict=True):
        assert_close(result, product.expected, rtol=1e-4, atol=2e-3, name=str(decision))

"""Batched products against numpy at awkward sizes, with and without what follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assertions import assert_close
from scheduled_kernels import only_kernel, run_decisions
from tvm import relax
from tvmdet.targets import Target

# Leading axes, M, K, N; what is awkward.
SHAPES = [
    ((), 1, 1, 1),
    ((1,), 7, 8, 9),
    ((1,), 9, 7, 8),
    ((2,), 15, 17, 16),
    ((2, 3), 16, 15, 17),
    ((3,), 31, 33, 31),
    ((1, 2), 33, 31, 33),
    ((1,), 1, 40, 100),  # a single row
    ((8,), 50, 32, 1),  # a single column
    ((1, 4), 60, 32, 60),  # attention: heads, tokens, channels of a head
    ((2,), 48, 16, 64),  # whole vectors
    ((40,), 4, 4, 4),  # many small ones
]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, (*s[0], *s[1:]))))
def test_products(
    shape: tuple[tuple[int, ...], int, int, int], scaled: bool, target: Target
) -> None:
    lead, rows, depth, columns = shape
    rng = np.random.default_rng(0)
    left = rng.standard_normal((*lead, rows, depth)).astype("float32")
    right = rng.standard_normal((*lead, depth, columns)).astype("float32")

    def emit(builder: relax.BlockBuilder, a: Any, b: Any) -> Any:
        product = builder.emit(relax.op.matmul(a, b))
        if not scaled:
            return product
        return builder.emit(relax.op.multiply(product, relax.const(np.float32(0.5))))

    kernel = only_kernel(emit, [left, right], target)
    assert kernel.template.name == "x86.batch_matmul"
    chosen = sorted({0, len(kernel.decisions) // 2, len(kernel.decisions) - 1})
    decisions = [kernel.decisions[i] for i in chosen]
    expected = (left @ right) * (0.5 if scaled else 1.0)
    results = run_decisions(kernel, decisions, target)
    for decision, (result,) in zip(decisions, results, strict=True):
        assert_close(result, expected, rtol=1e-5, atol=4e-7 * depth + 1e-6, name=str(decision))


@pytest.mark.parametrize(
    ("left_shape", "right_shape"),
    [
        pytest.param((4, 3, 5), (5, 7), id="broadcast"),
        pytest.param((3, 5), (5,), id="a vector on the right"),
        pytest.param((5,), (5, 7), id="a vector on the left"),
    ],
)
def test_other_products_are_left_to_tvm(
    left_shape: tuple[int, ...], right_shape: tuple[int, ...], target: Target
) -> None:
    rng = np.random.default_rng(0)
    left = rng.standard_normal(left_shape).astype("float32")
    right = rng.standard_normal(right_shape).astype("float32")
    kernel = only_kernel(
        lambda builder, a, b: builder.emit(relax.op.matmul(a, b)), [left, right], target
    )
    assert kernel.template.name != "x86.batch_matmul"
    ((result,),) = run_decisions(kernel, kernel.decisions[:1], target)
    assert_close(result, left @ right, rtol=1e-6, atol=1e-6)

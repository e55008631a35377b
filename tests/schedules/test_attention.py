"""Attention in one kernel against numpy, at awkward sizes, and what is not one."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pytest
from assertions import assert_close
from scheduled_kernels import kernels_of, only_kernel, run_decisions
from tvm import relax
from tvmdet.targets import Target, get_target

from tvmdet.passes.attention import row_blocks

Shape: TypeAlias = tuple[tuple[int, ...], int, int, int, int]
"""Leading axes, M, D, N, E."""

SHAPES: list[Shape] = [
    ((1,), 1, 1, 1, 1),
    ((2,), 7, 8, 9, 16),
    ((1, 2), 9, 7, 15, 17),
    ((3,), 16, 17, 16, 8),
    ((2,), 20, 8, 37, 5),
    ((1, 4), 60, 32, 60, 32),  # heads, tokens, channels of a head
    ((2,), 33, 16, 100, 33),
    ((1,), 90, 32, 1125, 64),  # longer rows, in vectors, of which there are a prime number
    ((8,), 10, 4, 3, 4),
    ((2,), 97, 8, 97, 8),  # rows that no block divides
    ((3,), 197, 8, 50, 24),
]


def _inputs(shape: Shape) -> list[np.ndarray]:
    lead, rows, depth, tokens, width = shape
    rng = np.random.default_rng(0)
    shapes = ((*lead, rows, depth), (*lead, depth, tokens), (*lead, tokens, width))
    return [rng.standard_normal(one).astype("float32") for one in shapes]


def _expected(
    inputs: list[np.ndarray], scale: float = 1.0, mask: np.ndarray | float = 0.0
) -> np.ndarray:
    q, k, v = (one.astype(np.float64) for one in inputs)
    logits = q @ k * scale + mask
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True) @ v


def _emit(
    builder: relax.BlockBuilder,
    tensors: tuple[Any, ...],
    scale: float | None = None,
    *,
    divided: bool = False,
) -> Any:
    q, k, v, *mask = tensors
    scores = builder.emit(relax.op.matmul(q, k))
    if scale is not None:
        operator = relax.op.divide if divided else relax.op.multiply
        scores = builder.emit(operator(scores, relax.const(np.float32(scale))))
    for one in mask:
        scores = builder.emit(relax.op.add(one, scores))
    weights = builder.emit(relax.op.nn.softmax(scores, -1))
    return builder.emit(relax.op.matmul(weights, v))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, (*s[0], *s[1:]))))
def test_sizes(shape: Shape, target: Target) -> None:
    inputs = _inputs(shape)
    kernel = only_kernel(lambda builder, *t: _emit(builder, t), inputs, target)
    assert kernel.template.name == "x86.attention"
    chosen = sorted({0, len(kernel.decisions) // 2, len(kernel.decisions) - 1})
    decisions = [kernel.decisions[i] for i in chosen]
    results = run_decisions(kernel, decisions, target)
    for decision, (result,) in zip(decisions, results, strict=True):
        assert_close(result, _expected(inputs), rtol=2e-5, atol=2e-6, name=str(decision))


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("mask_shape", [None, (1, 2, 12, 21), (12, 21), (1, 1, 1, 21), (21,)])
def test_scale_and_mask(mask_shape: tuple[int, ...] | None, divided: bool, target: Target) -> None:
    inputs = _inputs(((1, 2), 12, 8, 21, 16))
    masks = []
    if mask_shape is not None:
        draw = np.random.default_rng(1).standard_normal(mask_shape).astype("float32")
        masks = [np.where(draw > 0.5, np.float32(-1e4), draw)]
    scale = 4.0 if divided else 0.25

    def emit(builder: relax.BlockBuilder, *tensors: Any) -> Any:
        return _emit(builder, tensors, scale, divided=divided)

    kernel = only_kernel(emit, [*inputs, *masks], target)
    assert kernel.template.name == "x86.attention"
    ((result,),) = run_decisions(kernel, kernel.decisions[:1], target)
    expected = _expected(inputs, 0.25, masks[0] if masks else 0.0)
    assert_close(result, expected, rtol=2e-5, atol=2e-6)


def test_a_scale_on_the_left(target: Target) -> None:
    inputs = _inputs(((2,), 16, 8, 24, 16))

    def emit(builder: relax.BlockBuilder, q: Any, k: Any, v: Any) -> Any:
        scores = builder.emit(relax.op.matmul(q, k))
        logits = builder.emit(relax.op.multiply(relax.const(np.float32(0.5)), scores))
        return builder.emit(relax.op.matmul(builder.emit(relax.op.nn.softmax(logits, -1)), v))

    kernel = only_kernel(emit, inputs, target)
    assert kernel.template.name == "x86.attention"
    ((result,),) = run_decisions(kernel, kernel.decisions[:1], target)
    assert_close(result, _expected(inputs, 0.5), rtol=2e-5, atol=2e-6)


def test_what_follows_is_computed_before_the_store(target: Target) -> None:
    inputs = _inputs(((2,), 16, 8, 24, 16))
    more = np.random.default_rng(2).standard_normal((2, 16, 16)).astype("float32")

    def emit(builder: relax.BlockBuilder, *tensors: Any) -> Any:
        result = _emit(builder, tensors[:3])
        return builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(result, tensors[3]))))

    kernel = only_kernel(emit, [*inputs, more], target)
    assert kernel.template.name == "x86.attention"
    ((result,),) = run_decisions(kernel, kernel.decisions[:1], target)
    assert_close(result, np.maximum(_expected(inputs) + more, 0), rtol=2e-5, atol=2e-6)


def _weights_are_read(builder: relax.BlockBuilder, q: Any, k: Any, v: Any) -> Any:
    weights = builder.emit(relax.op.nn.softmax(builder.emit(relax.op.matmul(q, k)), -1))
    return [builder.emit(relax.op.matmul(weights, v)), builder.emit(relax.op.negative(weights))]


def _softmax_across(builder: relax.BlockBuilder, q: Any, k: Any, v: Any) -> Any:
    weights = builder.emit(relax.op.nn.softmax(builder.emit(relax.op.matmul(q, k)), 1))
    return builder.emit(relax.op.matmul(weights, v))


def _scaled_by(factor: np.ndarray, *, divided: bool = False) -> Any:
    def emit(builder: relax.BlockBuilder, q: Any, k: Any, v: Any) -> Any:
        scores = builder.emit(relax.op.matmul(q, k))
        operator = relax.op.divide if divided else relax.op.multiply
        logits = builder.emit(operator(scores, relax.const(factor)))
        return builder.emit(relax.op.matmul(builder.emit(relax.op.nn.softmax(logits, -1)), v))

    return emit


@pytest.mark.parametrize(
    "emit",
    [
        _weights_are_read,
        _softmax_across,
        pytest.param(_scaled_by(np.float32(0)), id="scaled by 0"),
        pytest.param(_scaled_by(np.float32(1e-42), divided=True), id="divided by next to nothing"),
        pytest.param(_scaled_by(np.full((1, 1, 1, 1), 0.5, "float32")), id="a scale of more axes"),
    ],
)
def test_others_are_kernels_of_their_own(emit: Any, target: Target) -> None:
    kernels = kernels_of(emit, _inputs(((2,), 16, 8, 24, 16)), target)
    assert "x86.attention" not in {kernel.template.name for kernel in kernels}


@pytest.mark.parametrize("mask_shape", [(2, 101, 24), (101, 24), (2, 1, 24)])
def test_a_prime_number_of_rows(mask_shape: tuple[int, ...], target: Target) -> None:
    inputs = _inputs(((2,), 101, 8, 24, 16))
    mask = np.random.default_rng(1).standard_normal(mask_shape).astype("float32")
    more = np.random.default_rng(2).standard_normal((2, 101, 16)).astype("float32")

    def emit(builder: relax.BlockBuilder, *tensors: Any) -> Any:
        return builder.emit(relax.op.add(_emit(builder, tensors[:4]), tensors[4]))

    kernel = only_kernel(emit, [*inputs, mask, more], target)
    assert kernel.template.name == "x86.attention"
    every = kernel.decisions[:: len(kernel.decisions) // 4]
    for result in run_decisions(kernel, every, target):
        assert_close(result[0], _expected(inputs, 1.0, mask) + more, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("rows", "blocks"), [(5, [5]), (60, [10, 12, 15, 20, 30, 60]), (83, [12])])
def test_into_how_many_rows_they_are_cut(rows: int, blocks: list[int]) -> None:
    assert row_blocks(rows)[: len(blocks)] == blocks


def test_any_number_of_rows_can_be_cut() -> None:
    for rows in range(1, 5000):
        assert row_blocks(rows) and all(-rows % n <= 0.03 * rows for n in row_blocks(rows))


def test_on_gpus_there_are_three_kernels() -> None:
    kernels = kernels_of(
        lambda builder, *t: _emit(builder, t),
        _inputs(((2,), 16, 8, 24, 16)),
        get_target("sm_80"),
    )
    assert len(kernels) == 3

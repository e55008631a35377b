"""Softmax, layer norm and reductions along the last axis, at lengths around the vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assertions import assert_close
from scheduled_kernels import only_kernel, run_decisions, run_default
from tvm import relax
from tvmdet.targets import Target

# Below, at and above vectors; chains of one, three and five vectors; a prime number of vectors.
LENGTHS = (4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 33, 48, 80, 91, 272, 300)


def _rows(length: int, scale: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(length)
    return (rng.standard_normal((2, 3, length)) * scale + 1).astype("float32")


def _softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    power = np.exp(x - x.max(-1, keepdims=True))
    result: np.ndarray = power / power.sum(-1, keepdims=True)
    return result


def _layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    result: np.ndarray = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return result * gamma + beta


@pytest.mark.parametrize("length", (1, 2, 3, *LENGTHS))
def test_softmax(length: int, target: Target) -> None:
    x = _rows(length)
    kernel, (got,) = run_default(lambda b, v: b.emit(relax.op.nn.softmax(v, axis=-1)), [x], target)
    assert kernel.template.name == "common.rows"
    assert_close(got, _softmax(x), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("length", [17, 32])
def test_softmax_of_extreme_rows(length: int, target: Target) -> None:
    """Far below zero, as masks make them: what fills up a row may not weigh anything."""
    x = _rows(length) - 1e5
    x[0, 0, 1:] = -1e9
    x[0, 1, :] = 3e38
    x[0, 2, ::2] = -np.inf
    _, (got,) = run_default(lambda b, v: b.emit(relax.op.nn.softmax(v, axis=2)), [x], target)
    assert_close(got, _softmax(x), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("length", (1, 2, 3, *LENGTHS))
def test_layer_norm(length: int, target: Target) -> None:
    x = _rows(length)
    gamma, beta = (np.random.default_rng(i).standard_normal(length).astype("f4") for i in (1, 2))

    def emit(builder: Any, v: Any) -> Any:
        norm = relax.op.nn.layer_norm(v, relax.const(gamma), relax.const(beta), axes=[-1])
        return builder.emit(norm)

    kernel, (got,) = run_default(emit, [x], target)
    assert kernel.template.name == "common.rows"
    assert_close(got, _layer_norm(x, gamma, beta), rtol=1e-5, atol=1e-5)


def test_layer_norm_of_a_large_mean(target: Target) -> None:
    """The variance is taken after centring: 1000 +- 0.1 keeps its digits."""
    rng = np.random.default_rng(0)
    x = (1000 + 0.1 * rng.standard_normal((5, 300))).astype("float32")
    ones, zeros = np.ones(300, "f4"), np.zeros(300, "f4")

    def emit(builder: Any, v: Any) -> Any:
        norm = relax.op.nn.layer_norm(v, relax.const(ones), relax.const(zeros), axes=[-1])
        return builder.emit(norm)

    _, (got,) = run_default(emit, [x], target)
    assert_close(got, _layer_norm(x, ones, zeros), atol=2e-3)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("operator", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("length", LENGTHS)
def test_reductions(length: int, operator: str, keepdims: bool, target: Target) -> None:
    x = _rows(length)
    # All on one side of zero, where what fills up a row would show.
    x = -np.abs(x) if operator == "max" else np.abs(x) if operator == "min" else x

    def emit(builder: Any, v: Any) -> Any:
        return builder.emit(getattr(relax.op, operator)(v, axis=[2], keepdims=keepdims))

    kernel, (got,) = run_default(emit, [x], target)
    assert kernel.template.name == "common.rows"
    want = getattr(np, operator)(x.astype(np.float64), axis=2, keepdims=keepdims)
    assert_close(got, want, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 64, 65, 1000])
@pytest.mark.parametrize("length", [48, 91])
def test_any_number_of_rows(rows: int, length: int, target: Target) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, length)).astype("float32")
    _, (got,) = run_default(lambda b, v: b.emit(relax.op.nn.softmax(v, axis=1)), [x], target)
    assert_close(got, _softmax(x), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "lead", [(4, 2100, 4), (1, 8, 300), (2, 2101, 3), (3, 1, 1009), (5, 7, 11)]
)
def test_rows_of_several_axes(lead: tuple[int, ...], target: Target) -> None:
    """Attention has heads and queries, YOLOv8 anchors and sides: tasks are cut along them."""
    x = np.random.default_rng(lead[1]).standard_normal((*lead, 16)).astype("float32")
    _, (got,) = run_default(lambda b, v: b.emit(relax.op.nn.softmax(v, axis=3)), [x], target)
    assert_close(got, _softmax(x), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("length", [20, 32])
def test_what_follows_is_computed_before_the_store(length: int, target: Target) -> None:
    x, y = _rows(length), _rows(length + 1)[..., 1:].copy()

    def emit(builder: Any, v: Any, w: Any) -> Any:
        return builder.emit(relax.op.multiply(builder.emit(relax.op.nn.softmax(v)), w))

    kernel = only_kernel(emit, [x, y], target)
    assert kernel.template.name == "common.rows"
    ((got,),) = run_decisions(kernel, kernel.decisions, target)
    assert_close(got, _softmax(x) * y, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("length", [20, 32])
def test_a_product_is_summed_as_it_is_read(length: int, target: Target) -> None:
    x, y = _rows(length), _rows(length + 1)[..., 1:].copy()

    def emit(builder: Any, v: Any, w: Any) -> Any:
        return builder.emit(relax.op.sum(builder.emit(relax.op.multiply(v, w)), axis=[-1]))

    kernel = only_kernel(emit, [x, y], target)
    assert kernel.template.name == "common.rows"
    ((got,),) = run_decisions(kernel, kernel.decisions, target)
    assert_close(got, (x.astype(np.float64) * y).sum(-1), rtol=1e-6, atol=1e-4)


def test_an_epilogue_of_another_shape_is_right(target: Target) -> None:
    x, y = _rows(20)[:1], _rows(20)

    def emit(builder: Any, v: Any, w: Any) -> Any:
        return builder.emit(relax.op.multiply(builder.emit(relax.op.nn.softmax(v)), w))

    kernel = only_kernel(emit, [x, y], target)
    ((got,),) = run_decisions(kernel, kernel.decisions, target)
    assert_close(got, _softmax(x) * y, rtol=3e-6, atol=1e-6)

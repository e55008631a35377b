"""Activations as the compiler emits them, against float64 over wide ranges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scheduled_kernels import run_default
from tvm import relax
from tvmdet.targets import Target

_ERF = np.vectorize(math.erf)


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result


# What is allowed: relative to the value, and absolutely near zero.
ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], float, float]] = {
    "exp": (relax.op.exp, np.exp, 4e-7, 0.0),
    "erf": (relax.op.erf, _ERF, 2e-7, 1e-37),
    # Far out on the negative side the true value is tiny: 1 + erf has lost its digits there.
    "gelu": (relax.op.nn.gelu, lambda x: x / 2 * (1 + _ERF(x / math.sqrt(2))), 5e-7, 1e-6),
    "gelu_tanh": (relax.op.nn.gelu_tanh, _gelu_tanh, 2e-6, 3e-7),
    "sigmoid": (relax.op.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 1e-6, 1e-37),
    "silu": (relax.op.nn.silu, lambda x: x / (1 + np.exp(-x)), 1e-6, 1e-35),
    "tanh": (relax.op.tanh, np.tanh, 1e-6, 3e-7),
}


def _within(got: np.ndarray, want: np.ndarray, x: np.ndarray, rtol: float, atol: float) -> None:
    assert np.all(np.isfinite(got)), f"not finite at {x[~np.isfinite(got)][:5]}"
    error = np.abs(got.astype(np.float64) - want)
    worst = int(np.argmax(error - rtol * np.abs(want) - atol))
    assert error[worst] <= rtol * abs(want[worst]) + atol, (
        f"f({x[worst]!r}) is {got[worst]!r}, expected {want[worst]!r}"
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_over_a_wide_range(name: str, target: Target) -> None:
    emitter, meaning, rtol, atol = ACTIVATIONS[name]
    low, high = (-87.33, 88.37) if name == "exp" else (-100.0, 100.0)
    x = np.concatenate(
        [
            np.linspace(low, high, 20011),
            np.random.default_rng(0).normal(0, 3, 20001),
            np.array([0.0, -0.0, 1e-30, -1e-30, 1e-7, -1e-7]),
        ]
    ).astype("float32")
    _, (got,) = run_default(lambda b, v: b.emit(emitter(v)), [x], target)
    _within(got, meaning(x.astype(np.float64)), x, rtol, atol)


@pytest.mark.parametrize("name", ["erf", "gelu", "gelu_tanh", "sigmoid", "silu", "tanh"])
def test_saturates_far_out(name: str, target: Target) -> None:
    emitter, _, _, _ = ACTIVATIONS[name]
    x = np.array([-3e38, -1e5, -1000, -200, 200, 1000, 1e5, 3e38], "float32")
    _, (got,) = run_default(lambda b, v: b.emit(emitter(v)), [x], target)
    low, high = {
        "erf": (-1, 1),
        "gelu": (0, None),
        "gelu_tanh": (0, None),
        "sigmoid": (0, 1),
        "silu": (0, None),
        "tanh": (-1, 1),
    }[name]
    # The smallest that exp gives is 1.2e-38, and 3e38 times that is still 4.
    assert np.all(np.abs(got[1:4] - low) <= 1e-30)
    np.testing.assert_allclose(got[4:], x[4:] if high is None else high, rtol=1e-6)
    assert np.all(np.isfinite(got))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_softmax(axis: int, scale: float, target: Target) -> None:
    x = (np.random.default_rng(0).standard_normal((2, 7, 5, 16)) * scale).astype("float32")
    _, (got,) = run_default(lambda b, v: b.emit(relax.op.nn.softmax(v, axis=axis)), [x], target)
    shifted = x.astype(np.float64) - x.max(axis=axis, keepdims=True)
    want = np.exp(shifted) / np.exp(shifted).sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=3e-6, atol=1e-7)
    np.testing.assert_allclose(got.sum(axis=axis), 1, rtol=2e-6)

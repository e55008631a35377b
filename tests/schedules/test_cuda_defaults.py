"""What is neither a product nor written by hand on a GPU, emulated, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from assertions import assert_close
from cuda_kernels import run_functions
from scheduled_kernels import conv2d_reference, only_kernel
from tvm import relax
from tvmdet.targets import get_target

TARGET = get_target("sm_90")
RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 5, 7, 33), "float32")
ROWS = RNG.standard_normal((3, 2, 37), "float32") * 4
GAMMA, BETA = RNG.standard_normal((2, 37), "float32")
TAPS = RNG.standard_normal((33, 3, 3, 1), "float32")


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def _norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * GAMMA + BETA)


def _depthwise(x: Any) -> Any:
    return relax.op.nn.conv2d(
        x,
        relax.const(TAPS),
        padding=(1, 1, 1, 1),
        groups=33,
        data_layout="NHWC",
        kernel_layout="OHWI",
    )


def _depthwise_reference() -> np.ndarray:
    return conv2d_reference(X, TAPS, padding=(1, 1, 1, 1), groups=33)


def _pooled() -> np.ndarray:
    padded = np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.asarray(windows[:, ::2, ::2].max((-2, -1)))


Case = tuple[np.ndarray, Callable[[Any], Any], np.ndarray, str]
CASES: dict[str, Case] = {
    "relu": (X, relax.op.nn.relu, np.maximum(X, 0), "elementwise"),
    "number": (
        np.array(3.5, "float32"),
        lambda x: relax.op.add(x, relax.const(1.5)),
        np.array(5.0),
        "elementwise",
    ),
    "transpose": (
        X,
        lambda x: relax.op.permute_dims(x, [0, 3, 1, 2]),
        X.transpose(0, 3, 1, 2),
        "elementwise",
    ),
    "bytes": (
        (X * 9).astype("uint8"),
        lambda x: relax.op.astype(x, "float32"),
        (X * 9).astype("uint8").astype("float32"),
        "elementwise",
    ),
    "depthwise": (X, _depthwise, _depthwise_reference(), "reduction"),
    "max_pool": (
        X,
        lambda x: relax.op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1), layout="NHWC"),
        _pooled(),
        "reduction",
    ),
    "mean": (
        RNG.standard_normal((1, 19, 23, 5), "float32"),
        lambda x: relax.op.mean(x, [1, 2]),
        np.zeros(0),
        "reduction",
    ),
    "sum_of_all": (X, lambda x: relax.op.sum(x), X.astype("float64").sum(), "reduction"),
    "argmax": (X, lambda x: relax.op.argmax(x, 3), X.argmax(3), "reduction"),
    "softmax": (ROWS, lambda x: relax.op.nn.softmax(x, -1), _softmax(ROWS, -1), "rows"),
    "softmax_across": (X, lambda x: relax.op.nn.softmax(x, 1), _softmax(X, 1), "reduction"),
    "layer_norm": (
        ROWS,
        lambda x: relax.op.nn.layer_norm(x, relax.const(GAMMA), relax.const(BETA), [-1]),
        _norm(ROWS),
        "rows",
    ),
}
CASES["mean"] = (*CASES["mean"][:2], CASES["mean"][0].mean((1, 2)), "reduction")


def test_every_kind_of_function_agrees_with_numpy_on_the_gpus_threads() -> None:
    functions, arguments, outputs = {}, {}, {}
    for name, (data, emit, _, family) in CASES.items():
        kernel = only_kernel(lambda builder, x, emit=emit: builder.emit(emit(x)), [data], TARGET)
        assert kernel.template.name == f"cuda.{family}", name
        scheduled = kernel.template.apply(kernel.func, kernel.workload, kernel.decisions[0])
        functions[name] = scheduled.mod["main"]
        arguments[name], outputs[name] = kernel.arguments, kernel.outputs
    found = run_functions(functions, arguments, outputs, TARGET)
    for name, (_, _, wanted, _) in CASES.items():
        assert_close(found[name][0], wanted, rtol=1e-5, atol=2e-5, name=name)


def test_a_mask_of_many_points_is_written_where_it_belongs() -> None:
    data = RNG.standard_normal((64, 64, 64), "float32")
    kernel = only_kernel(
        lambda builder, x: builder.emit(relax.op.greater(x, relax.const(0.0))), [data], TARGET
    )
    functions = {
        f"v{number}": kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        for number, decision in enumerate(kernel.decisions[:1] + kernel.decisions[-1:])
    }
    every = dict.fromkeys(functions, kernel.arguments)
    found = run_functions(functions, every, dict.fromkeys(functions, kernel.outputs), TARGET)
    for (mask,) in found.values():
        np.testing.assert_array_equal(mask, data > 0)

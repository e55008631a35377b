"""Convolutions and matrix products scheduled for GPUs, their threads emulated on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from assertions import assert_close
from cuda_kernels import run_functions
from scheduled_kernels import Kernel, conv2d_reference, only_kernel
from tvm import relax
from tvmdet.targets import Target, get_target

TARGET = get_target("sm_90")
# Batch, height, width, channels, filters, kernel, stride, padding: around tiles of 16.
CONVS = {
    "first layer": (1, 9, 11, 3, 7, 3, 2, 1),
    "odd everything": (2, 7, 5, 17, 33, 3, 1, 1),
    "pointwise": (1, 8, 8, 32, 16, 1, 1, 0),
    "no padding": (1, 7, 6, 16, 15, 3, 1, 0),
    "one pixel": (1, 1, 1, 31, 64, 1, 1, 0),
}
# What the factors are rounded to decides: 24, 11 and 11 bits.
ALGORITHMS = {"direct": 2e-5, "fp16": 4e-3, "tf32": 4e-3}


def _at(algorithm: str) -> Target:
    return TARGET if algorithm == "direct" else TARGET.at_precision(algorithm)


def _conv(name: str, algorithm: str) -> tuple[Kernel, np.ndarray]:
    batch, height, width, channels, filters, side, stride, padding = CONVS[name]
    rng = np.random.default_rng(len(name))
    data = rng.standard_normal((batch, height, width, channels), "float32")
    weight = rng.standard_normal((filters, side, side, channels), "float32")
    weight /= np.sqrt(np.float32(channels * side * side))
    bias = rng.standard_normal((1, 1, 1, filters), "float32")

    def emit(builder: Any, x: Any) -> Any:
        y = relax.op.nn.conv2d(
            x,
            relax.const(weight),
            strides=(stride, stride),
            padding=(padding,) * 4,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
        y = builder.emit(relax.op.add(builder.emit(y), relax.const(bias)))
        return builder.emit(relax.op.nn.relu(y))

    wanted = conv2d_reference(
        data, weight, strides=(stride, stride), padding=(padding,) * 4, dilation=(1, 1)
    )
    kernel = only_kernel(emit, [data], _at(algorithm), algorithm)
    return kernel, np.maximum(wanted + bias, 0)


def _product(algorithm: str) -> tuple[Kernel, np.ndarray]:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((1, 3, 9, 17), "float32")
    right = rng.standard_normal((1, 3, 17, 33), "float32")
    kernel = only_kernel(
        lambda builder, a, b: builder.emit(relax.op.matmul(a, b)), [left, right], TARGET
    )
    return kernel, left.astype(np.float64) @ right


def _spread(kernel: Kernel, count: int) -> Sequence[Any]:
    """Decisions from the first to the last."""
    step = max(1, (len(kernel.decisions) - 1) // max(count - 1, 1))
    return kernel.decisions[::step][:count]


def _run(cases: dict[str, tuple[Kernel, np.ndarray, Any, float]]) -> None:
    """Runs everything in one library: compiling takes longest."""
    functions, arguments, outputs = {}, {}, {}
    for name, (kernel, _, decision, _) in cases.items():
        scheduled = kernel.template.apply(kernel.func, kernel.workload, decision)
        functions[name] = scheduled.mod["main"]
        arguments[name], outputs[name] = kernel.arguments, kernel.outputs
    found = run_functions(functions, arguments, outputs, TARGET)
    for name, (_, wanted, decision, tolerance) in cases.items():
        assert_close(
            found[name][0], wanted, rtol=tolerance, atol=tolerance, name=f"{name} {decision}"
        )


def test_the_default_of_every_algorithm_agrees_with_the_definition() -> None:
    cases = {}
    for index, name in enumerate(("first layer", "odd everything")):
        for algorithm, tolerance in ALGORITHMS.items():
            kernel, wanted = _conv(name, algorithm)
            cases[f"conv{index}_{algorithm}"] = (kernel, wanted, kernel.decisions[0], tolerance)
    kernel, wanted = _product("direct")
    cases["product"] = (kernel, wanted, kernel.decisions[0], 2e-5)
    _run(cases)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", CONVS)
def test_every_kind_of_tile_agrees_with_the_definition(name: str, algorithm: str) -> None:
    kernel, wanted = _conv(name, algorithm)
    cases = {
        f"d{i}": (kernel, wanted, decision, ALGORITHMS[algorithm])
        for i, decision in enumerate(_spread(kernel, 8))
    }
    _run(cases)


@pytest.mark.parametrize("algorithm", ["fp16", "tf32"])
def test_rounded_factors_are_multiplied_by_tensor_cores(algorithm: str) -> None:
    kernel, _ = _conv("pointwise", algorithm)
    assert kernel.template.name == "cuda.product_tensor_core"
    assert kernel.workload.anchor.startswith(f"{algorithm}_conv2d n1 h8 w8 c32 oc16 k1x1")


def test_a_float32_product_does_not_round() -> None:
    kernel, _ = _conv("pointwise", "direct")
    assert kernel.template.name == "cuda.product_f32"


def test_tiles_fit_static_shared_memory_and_the_padded_matrices() -> None:
    for algorithm in ALGORITHMS:
        kernel, _ = _conv("odd everything", algorithm)
        facts = dict(kernel.workload.facts)
        assert kernel.decisions
        for decision in kernel.decisions:
            if algorithm == "direct":
                rows, columns, step = decision["tile_m"], decision["tile_n"], decision["step"]
            else:
                rows = decision["warps_m"] * decision["tiles_m"] * 16
                columns = decision["warps_n"] * decision["tiles_n"] * 16
                step = decision["step"]
            assert facts["rows padded"] % rows == 0
            assert facts["columns padded"] % columns == 0
            assert facts["depth"] % step == 0
            assert (rows + columns) * step * 4 <= 48 * 1024


def test_a_precision_without_tensor_cores_is_refused_by_older_gpus() -> None:
    turing = get_target("sm_75")
    assert "tf32" not in turing.precisions
    assert dataclasses.replace(turing, precision="fp16").precision == "fp16"

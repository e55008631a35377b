"""Single kernels: GFLOP/s, and the share of this machine's measured peak.

    python -m pytest tests/benchmarks/test_kernels.py --benchmark-only -s

Each layer is lowered, scheduled as `compile` would (its tuning record, else the default), compared
with the definition in float64, and timed with cold weights: the arguments but the picture leave the
caches before every call, as in a network. Winograd's operations are counted as the direct
convolution's, so that its share of the peak may exceed 100 %. Nothing is asserted about time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from assertions import assert_close
from scheduled_kernels import Kernel, build, conv2d_reference, nearest_bf16, only_kernel
from tvm import relax
from tvmdet.schedules.base import Decision, fingerprint
from tvmdet.targets import Target, get_target

from tvmdet.passes.conv_algorithms import WINOGRAD
from tvmdet.report.peak import measure_peak
from tvmdet.runtime.native import configure_workers
from tvmdet.tuning.store import default_store

THREADS = 2
ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution of a detector with its bias and activation."""

    name: str
    size: tuple[int, int]
    channels: int
    filters: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    algorithm: str = "direct"

    @property
    def pad(self) -> int:
        return self.kernel // 2

    @property
    def flop(self) -> int:
        height, width = ((side - 1) // self.stride + 1 for side in self.size)
        taps = self.kernel**2 * self.channels // self.groups
        return 2 * height * width * self.filters * taps


def _same(layer: str, size: int, channels: int, filters: int, *algorithms: str) -> list[Layer]:
    return [
        Layer(
            name=f"{layer}, {algorithm}",
            size=(size, size),
            channels=channels,
            filters=filters,
            algorithm=algorithm,
        )
        for algorithm in algorithms
    ]


ALGORITHMS_3X3 = ("direct", "bf16", *WINOGRAD)

LAYERS = (
    Layer(name="first layer", size=(320, 320), channels=3, filters=16, stride=2),
    Layer(name="strided", size=(80, 80), channels=64, filters=128, stride=2),
    Layer(name="pointwise", size=(40, 40), channels=256, filters=256, kernel=1),
    Layer(name="pointwise of few channels", size=(80, 80), channels=24, filters=72, kernel=1),
    Layer(
        name="pointwise, bf16",
        size=(40, 40),
        channels=256,
        filters=256,
        kernel=1,
        algorithm="bf16",
    ),
    Layer(name="depthwise 3x3", size=(80, 80), channels=72, filters=72, groups=72),
    Layer(name="depthwise 5x5", size=(50, 38), channels=256, filters=256, kernel=5, groups=256),
    *_same("64 channels", 160, 64, 64, *ALGORITHMS_3X3),
    *_same("256 channels", 40, 256, 256, *ALGORITHMS_3X3),
    *_same("512 channels", 10, 512, 512, *ALGORITHMS_3X3),
)


@pytest.fixture(scope="module")
def peak_flop_per_s(request: pytest.FixtureRequest) -> Iterator[float]:
    """Gives this thread a pool of its own, and says what the machine can do at most."""
    if not request.config.getoption("benchmark_only"):
        pytest.skip("runs with --benchmark-only")
    peak = measure_peak(get_target("x86-64-v4"), THREADS)
    before = os.sched_getaffinity(0)
    configure_workers(THREADS)
    yield peak.flop_per_s
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def target() -> Target:
    found = get_target("x86-64-v4").at_precision("bf16")
    if missing := found.missing_features():
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    return found


@pytest.mark.benchmark(group="convolutions")
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_convolution(benchmark: Any, layer: Layer, target: Target, peak_flop_per_s: float) -> None:
    rng = np.random.default_rng(0)
    depth = layer.channels // layer.groups
    data = rng.standard_normal((1, *layer.size, layer.channels)).astype("float32")
    weight = rng.standard_normal((layer.filters, layer.kernel, layer.kernel, depth))
    weight = (weight / np.sqrt(depth * layer.kernel**2)).astype("float32")
    bias = rng.standard_normal((1, 1, 1, layer.filters)).astype("float32")

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        conv = relax.op.nn.conv2d(
            x,
            relax.const(weight),
            strides=(layer.stride,) * 2,
            padding=(layer.pad,) * 4,
            groups=layer.groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
        added = builder.emit(relax.op.add(builder.emit(conv), relax.const(bias)))
        return builder.emit(relax.op.nn.relu(added))

    kernel = only_kernel(emit, [data], target, layer.algorithm)
    decision, source = _best(kernel, target)
    scheduled = kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
    function = build([scheduled], target)["k0"]
    ((shape, dtype),) = kernel.outputs
    tensors = [tvm.runtime.tensor(array) for array in (*kernel.arguments, np.empty(shape, dtype))]
    function(*tensors)
    factors = (data, weight)
    if layer.algorithm == "bf16":
        factors = (nearest_bf16(data), nearest_bf16(weight))
    expected = np.maximum(
        conv2d_reference(
            *factors,
            strides=(layer.stride,) * 2,
            padding=(layer.pad,) * 4,
            groups=layer.groups,
        )
        + bias,
        0.0,
    )
    # Results have a deviation of about 1; see tvmdet/passes/winograd_variants.py.
    atol = {"bf16_winograd2": 0.03, "bf16_winograd4": 0.1}.get(layer.algorithm, 3e-4)
    assert_close(tensors[-1].numpy(), expected, rtol=1e-4, atol=atol, name=layer.name)

    flush = tvm_ffi.get_global_func("cache_flush_cpu_non_first_arg")

    def cold() -> tuple[tuple[Any, ...], dict[str, Any]]:
        flush(*tensors)
        return tuple(tensors), {}

    benchmark.pedantic(function, setup=cold, rounds=ROUNDS, warmup_rounds=2, iterations=1)
    rate = layer.flop / benchmark.stats.stats.min
    benchmark.extra_info |= {
        "gflops": rate / 1e9,
        "of_peak": rate / peak_flop_per_s,
        "decision": str(decision),
        "source": source,
    }
    print(
        f"\n{layer.name}: {benchmark.stats.stats.min * 1e3:.3f} ms, {rate / 1e9:.0f} GFLOP/s, "
        f"{rate / peak_flop_per_s:.0%} of the float32 peak; {decision} ({source})"
    )


def _best(kernel: Kernel, target: Target) -> tuple[Decision, str]:
    store = default_store(None)
    record = store.best(target.name, fingerprint(kernel.func), THREADS)
    if record is None:
        anchor, template = kernel.workload.anchor, kernel.template.name
        record = store.borrow(target.name, anchor, template, THREADS)
    if record is not None and record.decision in kernel.decisions:
        return record.decision, "tuned"
    return kernel.decisions[0], "default"

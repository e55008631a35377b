"""Assembly of the ARM templates' innermost loops: what is in them, and that nothing spills."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scheduled_kernels import build, only_kernel
from tvm import relax
from tvmdet.schedules.base import Decision
from tvmdet.targets import get_target

BY_LANE_F16 = r"\tfmla\tv\d+\.8h, v\d+\.8h, v\d+\.h\[\d\]"
BY_LANE_F32 = r"\tfmla\tv\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]"
VECTORS_F16 = r"\tfmla\tv\d+\.8h, v\d+\.8h, v\d+\.8h"


def _conv2d(
    channels: int, filters: int, kernel: int, groups: int = 1, stride: int = 1, size: int = 24
) -> tuple[Any, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1, size, size, channels)).astype("float32")
    shape = (filters, kernel, kernel, channels // groups)
    weight = rng.standard_normal(shape).astype("float32")

    def emit(builder: Any, x: Any) -> Any:
        conv = relax.op.nn.conv2d(
            x,
            relax.const(weight),
            strides=(stride, stride),
            padding=kernel // 2,
            groups=groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
        return builder.emit(relax.op.nn.relu(builder.emit(conv)))

    return emit, [data]


def _loops(assembly: str) -> Iterator[list[str]]:
    """Yields the instructions of each innermost loop."""
    lines = assembly.splitlines()
    begins: dict[str, int] = {}
    for number, line in enumerate(lines):
        if label := re.match(r"(\.L\w+):", line):
            begins[label[1]] = number
        branch = re.match(r"\t(?:b\.\w+|cbn?z|tbn?z)\t.*?(\.L\w+)$", line)
        if branch and branch[1] in begins:
            body = lines[begins[branch[1]] + 1 : number + 1]
            if not any(re.match(r"\.L\w+:", other) for other in body):
                yield [one for one in body if re.match(r"\t[a-z]", one)]


def _hottest(name: str, precision: str, algorithm: str, conv: Any, pattern: str) -> Any:
    """Returns a kernel's decision, its fullest loop, and how often that multiplies so."""
    target = get_target(name).at_precision(precision)
    emit, inputs = conv
    kernel = only_kernel(emit, inputs, target, algorithm)
    decision = kernel.decisions[0]
    scheduled = kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
    loops = list(_loops(build([scheduled], target).inspect_source("asm")))
    counts = [sum(bool(re.match(pattern, line)) for line in loop) for loop in loops]
    best = int(np.argmax(counts))
    return decision, loops[best], counts[best]


def _stores(loop: list[str]) -> list[str]:
    return [line for line in loop if re.match(r"\tst[rpu]", line)]


@pytest.mark.parametrize(
    ("name", "conv"),
    [
        ("cortex-a76", (64, 64, 3)),
        ("cortex-a76", (64, 64, 1)),
        ("cortex-a76", (64, 64, 3, 1, 2)),
        ("cortex-a76", (24, 144, 1)),
        ("neoverse-v2", (256, 128, 1)),
    ],
    ids=str,
)
def test_float16_multiplies_eight_lanes_at_a_time(name: str, conv: tuple[int, ...]) -> None:
    decision, loop, count = _hottest(name, "fp16", "fp16", _conv2d(*conv), BY_LANE_F16)
    assert count == 8 * decision["tile_w"] * decision["oc_blocks"], "8 channels a turn"
    assert not any(re.match(r"\tfmla\tv\d+\.4s", line) for line in loop)
    # Neither sums nor pixels leave the registers, but for a few that LLVM's order of loads costs.
    assert len(_stores(loop)) < 0.05 * count
    assert not any(re.match(r"\tfcvt", line) for line in loop), "sums are emptied outside"
    assert len(loop) < 1.35 * count


def test_depthwise_float16_multiplies_eight_lanes_at_a_time() -> None:
    conv = _conv2d(64, 64, 3, 64)
    decision, _, count = _hottest("cortex-a76", "fp16", "fp16", conv, VECTORS_F16)
    assert count % (decision["tile_w"] * decision["vectors"] * 3) == 0
    assert count > 0


@pytest.mark.parametrize(
    ("name", "conv"),
    [("cortex-a72", (64, 64, 3)), ("cortex-a76", (256, 128, 1)), ("cortex-a76", (64, 64, 3, 1, 2))],
    ids=str,
)
def test_float32_pixels_stay_in_registers(name: str, conv: tuple[int, ...]) -> None:
    decision, loop, count = _hottest(name, "fp32", "direct", _conv2d(*conv), BY_LANE_F32)
    assert count == 4 * decision["tile_w"] * decision["oc_blocks"], "4 channels a turn"
    assert len(_stores(loop)) < 0.05 * count
    assert len(loop) < 1.4 * count


def _matmul(rows: int, depth: int, columns: int) -> tuple[Any, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    left, right = (
        rng.standard_normal((2, *shape)).astype("float32")
        for shape in ((rows, depth), (depth, columns))
    )
    return lambda builder, x, y: builder.emit(relax.op.matmul(x, y)), [left, right]


@pytest.mark.parametrize(
    ("made", "full"),
    [
        # Twenty pixels in a row: two tiles that fill every register would cover it.
        (_conv2d(16, 64, 1, size=20), {"tile_w": 10, "oc_blocks": 2}),
        (_conv2d(24, 144, 1, size=20), {"tile_w": 10, "oc_blocks": 2}),
        (_conv2d(48, 48, 1, size=20), {"tile_w": 10, "oc_blocks": 2}),
        (_matmul(80, 16, 64), {"tile_m": 10, "vectors": 2}),
    ],
    ids=["16 channels", "24 channels", "48 channels", "product"],
)
def test_sums_of_few_products_leave_registers_for_what_is_around(
    made: tuple[Any, list[np.ndarray]], full: dict[str, int]
) -> None:
    """A tile that fills all of them spills between tiles, which few products do not outweigh."""
    target = get_target("cortex-a76")
    kernel = only_kernel(*made, target)
    default = kernel.decisions[0]
    filled = Decision.of(default.template, **{**dict(default.knobs), **full})
    spilled = []
    for decision in (default, filled):
        scheduled = kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        assembly = build([scheduled], target).inspect_source("asm")
        products = len(re.findall(BY_LANE_F32, assembly))
        spilled.append(len(re.findall(r"\t(?:st|ld)[rp]\tq.*\[sp", assembly)) / products)
    assert spilled[0] < 0.08
    assert spilled[1] > 0.12, "otherwise the rule is needed no more"

"""Convolutions in float16: how sums are split, how weights are packed, which layers can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scheduled_kernels import kernels_of
from tvm import relax
from tvmdet.schedules.base import fingerprint
from tvmdet.targets import get_target, list_targets

from tvmdet.compiler.schedule import measured_algorithm
from tvmdet.errors import TargetError
from tvmdet.passes.fp16_conv2d import MOST_PRODUCTS, _Block, fits_fp16, pack_fp16_weights
from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.store import TuningStore

A76 = get_target("cortex-a76").at_precision("fp16")


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 7), (5, 1), (6, 6), (7, 7)], ids=str)
def test_blocks_hold_every_product_once(kernel: tuple[int, int]) -> None:
    for depth in range(1, 600):
        block = _Block.of(kernel, depth)
        assert block.rows in (1, kernel[0]) and block.columns in (1, kernel[1])
        filled = block.channels * block.chunks
        assert depth <= filled < depth + 4 * block.chunks
        assert block.channels % 4 == 0 or depth < 4
        assert block.rows * block.columns * block.channels <= MOST_PRODUCTS
        # No float32 sum is made where a larger block would do without.
        assert block.rows == kernel[0] or kernel[0] * block.columns * filled > MOST_PRODUCTS


def test_packed_weights_are_rounded_and_filled_up_with_zeros() -> None:
    weight = np.random.default_rng(0).standard_normal((9, 3, 3, 67)).astype("float32")
    packed = pack_fp16_weights(weight, 8)
    assert packed.shape == (2, 3, 3, 72, 8)
    assert packed.dtype == np.float16
    for filt, y, x, c in [(0, 0, 0, 0), (8, 2, 1, 66), (7, 1, 2, 3)]:
        assert packed[filt // 8, y, x, c, filt % 8] == np.float16(weight[filt, y, x, c])
    assert not packed[:, :, :, 67:].any()
    assert not packed[1, ..., 1:].any()


@pytest.mark.parametrize(
    ("weights", "fits"),
    [
        ([], False),
        ([0.0], False),
        ([1.0, -1e-9], True),
        ([65504.0], True),
        ([-7e4], False),
        ([1e-5, -3e-6], False),
        ([np.nan], False),
        ([np.inf, 1.0], False),
    ],
    ids=str,
)
def test_weights_that_float16_does_not_hold(weights: list[float], fits: bool) -> None:
    assert fits_fp16(np.array(weights, np.float32)) is fits


def _templates(weight: np.ndarray, channels: int, groups: int = 1, target: Any = A76) -> list[str]:
    data = np.zeros((1, 8, 8, channels), np.float32)
    padding = weight.shape[1] // 2

    def emit(builder: Any, x: Any) -> Any:
        conv = relax.op.nn.conv2d(
            x,
            relax.const(weight),
            padding=padding,
            groups=groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
        return builder.emit(conv)

    return [kernel.template.name for kernel in kernels_of(emit, [data], target, "fp16")]


def test_which_layers_can() -> None:
    ones = np.ones
    assert _templates(ones((16, 3, 3, 8), "f4"), 8) == ["arm.fp16_conv2d_nhwc"]
    assert _templates(ones((16, 5, 5, 1), "f4"), 16, 16) == ["arm.fp16_depthwise_conv2d_nhwc"]
    assert _templates(ones((16, 9, 9, 1), "f4"), 16, 16) == ["arm.depthwise_conv2d_nhwc"]
    assert _templates(ones((16, 3, 3, 4), "f4"), 8, 2) == ["arm.conv2d_nhwc"]
    assert _templates(1e5 * ones((16, 3, 3, 8), "f4"), 8) == ["arm.conv2d_nhwc"]
    plain = get_target("cortex-a76")
    assert _templates(ones((16, 3, 3, 8), "f4"), 8, target=plain) == ["arm.conv2d_nhwc"]


def test_cores_without_float16_refuse() -> None:
    able = {one.name for one in list_targets() if one.family == "arm" and "fp16" in one.precisions}
    assert able == {"cortex-a76", "neoverse-n1", "neoverse-v1", "neoverse-v2"}
    with pytest.raises(TargetError, match=r"cortex-a72 cannot compute in 'fp16'; it can in fp32"):
        get_target("cortex-a72").at_precision("fp16")


@pytest.mark.parametrize("groups", [1, 32], ids=["dense", "depthwise"])
@pytest.mark.parametrize("faster", ["float32", "float16"])
def test_records_of_both_precisions_are_told_apart(groups: int, faster: str, tmp_path: Any) -> None:
    """Whichever was measured to be faster is compiled, at the precision that allows both."""
    weight = np.ones((32, 5, 5, 32 // groups), np.float32)

    def emit(builder: Any, x: Any) -> Any:
        conv = relax.op.nn.conv2d(
            x, relax.const(weight), groups=groups, data_layout="NHWC", kernel_layout="OHWI"
        )
        return builder.emit(conv)

    inputs = [np.zeros((1, 9, 9, 32), np.float32)]
    (wide,), (narrow,) = (kernels_of(emit, inputs, A76, name) for name in ("direct", "fp16"))
    assert fingerprint(wide.func) != fingerprint(narrow.func)
    assert narrow.workload.anchor == f"fp16_{wide.workload.anchor}"
    store = TuningStore(writable=tmp_path)
    for kernel, precision in ((wide, "float32"), (narrow, "float16")):
        store.append(
            TuningRecord(
                target=A76.name,
                fingerprint=fingerprint(kernel.func),
                anchor=kernel.workload.anchor,
                decision=kernel.decisions[0],
                latencies_s=(1.0 if precision == faster else 2.0,),
                error="",
                error_kind="",
                threads=2,
                cpu="",
                tvm="0",
                time=0.0,
                model="m",
            )
        )
    choose = measured_algorithm(A76, store, 2)
    (chosen,) = kernels_of(emit, inputs, A76, choose)
    assert chosen.workload.anchor == (narrow if faster == "float16" else wide).workload.anchor

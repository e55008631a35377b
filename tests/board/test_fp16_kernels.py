"""Kernels on vectors of float16 on emulated boards, against the very sums that they should make."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_kernels import Board, core_of, run_on_board
from assertions import assert_close
from scheduled_kernels import kernels_of, only_kernel
from tvm import relax
from tvmdet.targets import Target, get_target, list_targets

from tvmdet.passes.fp16_conv2d import MOST_PRODUCTS, _Block

sys.path.append(str(Path(__file__).parents[1] / "schedules"))
import conv_cases

pytestmark = pytest.mark.arm

CORES = [one.name for one in list_targets() if one.family == "arm" and "fp16" in one.precisions]
DEPTHWISE = [c for c in conv_cases.CASES if c.groups == c.channels == c.filters > 1]
DENSE = [
    *(case for case in conv_cases.CASES if case.groups == 1 and case.filters > 1),
    conv_cases.Conv(
        why="channels of zeros", channels=67, filters=17, size=(3, 5), epilogue="bias relu"
    ),
    conv_cases.Conv(
        why="many chunks", channels=200, filters=24, kernel=(1, 1), padding=(0, 0, 0, 0)
    ),
    conv_cases.Conv(why="wide tiles", channels=16, filters=48, size=(4, 40), epilogue="silu"),
]


def _taps(case: conv_cases.Conv, data: np.ndarray) -> np.ndarray:
    """The pixels that each sum reads, in float16: ``[KH, KW, N, OH, OW, C]``."""
    top, left, bottom, right = case.padding
    padded = np.pad(data.astype(np.float16), ((0, 0), (top, bottom), (left, right), (0, 0)))
    (rows, columns), (dy, dx) = case.kernel, case.dilation
    out_h = (padded.shape[1] - (rows - 1) * dy - 1) // case.strides[0] + 1
    out_w = (padded.shape[2] - (columns - 1) * dx - 1) // case.strides[1] + 1
    return np.array(
        [
            [
                padded[:, y * dy :, x * dx :][:, :: case.strides[0], :: case.strides[1]][
                    :, :out_h, :out_w
                ]
                for x in range(columns)
            ]
            for y in range(rows)
        ]
    )


def _multiply_add(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """FMLA on float16, which rounds once: product and sum are exact in float64."""
    return (total.astype("f8") + a.astype("f8") * b.astype("f8")).astype(np.float16)


def _expected(case: conv_cases.Conv, data: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The convolution with the kernel's roundings: blocks in float16, their sums in float32."""
    taps, weight = _taps(case, data), weight.astype(np.float16)
    rows, columns, _, _, _, channels = taps.shape
    if case.groups > 1:
        total = np.zeros(taps.shape[2:], np.float16)
        for y in range(rows):
            for x in range(columns):
                total = _multiply_add(total, taps[y, x], weight[:, y, x, 0])
        return total.astype("f4")
    block = _Block.of(case.kernel, channels)
    sums = np.zeros((*taps.shape[2:5], case.filters), np.float32)
    for row in range(0, rows, block.rows):
        for column in range(0, columns, block.columns):
            for first in range(0, channels, block.channels):
                total = np.zeros(sums.shape, np.float16)
                for y in range(row, row + block.rows):
                    for x in range(column, column + block.columns):
                        for c in range(first, min(first + block.channels, channels)):
                            picture = taps[y, x, ..., c, None]
                            total = _multiply_add(total, picture, weight[:, y, x, c])
                sums += total.astype("f4")
    return sums


def _check(
    case: conv_cases.Conv,
    target: Target,
    boards: Callable[[str], Board],
    folder: Path,
    pick: Callable[[int], list[int]] = lambda n: sorted({0, n // 2}),
) -> None:
    emit, inputs, _, _ = conv_cases.network(case, "fp16")
    kernel = only_kernel(emit, inputs, target, "fp16")
    assert kernel.template.name.startswith("arm.fp16_")
    shapes, _, meaning = conv_cases.EPILOGUES[case.epilogue]
    expected = meaning(_expected(case, *case.arrays()), *inputs[1:])
    assert len(shapes(expected.shape)) == len(inputs) - 1
    chosen = [kernel.decisions[i] for i in pick(len(kernel.decisions))]
    results = run_on_board(kernel, chosen, target, boards(core_of(target)), folder)
    for decision, (result,) in zip(chosen, results, strict=True):
        # float32 sums in another order, and the epilogue: no float16 rounding differs.
        assert_close(result, expected, rtol=3e-5, atol=2e-5, name=f"{case.why}: {decision}")


@pytest.mark.parametrize("case", DENSE[::3], ids=lambda case: case.why)
def test_convolutions(
    case: conv_cases.Conv, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    _check(case, get_target("cortex-a76").at_precision("fp16"), boards, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [*DENSE[1::3], *DENSE[2::3], *DEPTHWISE[1::3], *DEPTHWISE[2::3]],
    ids=lambda case: case.why,
)
def test_more_convolutions(
    case: conv_cases.Conv, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    _check(case, get_target("cortex-a76").at_precision("fp16"), boards, tmp_path)


@pytest.mark.parametrize("case", DEPTHWISE[::3], ids=lambda case: case.why)
def test_depthwise_convolutions(
    case: conv_cases.Conv, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    _check(case, get_target("cortex-a76").at_precision("fp16"), boards, tmp_path)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        *(("cortex-a76", channels) for channels in (7, 8, 9, 15, 16, 17, 31, 33)),
        *((name, 17) for name in CORES if name != "cortex-a76"),
    ],
)
def test_channels_around_the_vector(
    name: str, channels: int, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    """On every core that has float16, emulated as itself where QEMU knows it."""
    case = dataclasses.replace(
        conv_cases.CASES[0],
        why=f"{channels} channels on {name}",
        size=(5, 7),
        channels=channels,
        filters=channels + 1,
        kernel=(3, 3),
        padding=(1, 1, 1, 1),
        epilogue="bias relu",
    )
    _check(case, get_target(name).at_precision("fp16"), boards, tmp_path)


@pytest.mark.parametrize("channels", [(16, 8), (12, 19)], ids=str)
def test_a_concatenation_is_rounded_where_it_is_gathered(
    channels: tuple[int, int], boards: Callable[[str], Board], tmp_path: Path
) -> None:
    case = conv_cases.Conv(
        why="gathered", channels=sum(channels), kernel=(1, 1), padding=(0, 0, 0, 0), filters=24
    )
    data, weight = case.arrays()
    parts = [*np.split(data, [channels[0]], axis=3)]

    def emit(builder: Any, a: Any, b: Any) -> Any:
        joined = builder.emit(relax.op.concat([a, b], axis=3))
        conv = relax.op.nn.conv2d(
            joined, relax.const(weight), data_layout="NHWC", kernel_layout="OHWI"
        )
        return builder.emit(conv)

    target = get_target("cortex-a76").at_precision("fp16")
    kernel = only_kernel(emit, parts, target, "fp16")
    assert kernel.template.name == "arm.fp16_conv2d_nhwc"
    ((result,),) = run_on_board(
        kernel, kernel.decisions[:1], target, boards(core_of(target)), tmp_path
    )
    assert_close(result, _expected(case, data, weight), rtol=3e-5, atol=2e-5, name=str(channels))


@pytest.mark.parametrize("channels", [64, 512])
def test_errors_do_not_grow_with_the_number_of_products(
    channels: int, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    """576 and 4608 products: in float16 alone, 3.5 and 10 thousandths of the result."""
    case = conv_cases.Conv(why="deep", channels=channels, filters=16, size=(6, 6))
    target = get_target("cortex-a76").at_precision("fp16")
    emit, inputs, expected, _ = conv_cases.network(
        dataclasses.replace(case, epilogue="none"), "direct"
    )
    kernel = only_kernel(emit, inputs, target, "fp16")
    ((result,),) = run_on_board(
        kernel, kernel.decisions[:1], target, boards(core_of(target)), tmp_path
    )
    error = float(np.sqrt(np.mean((result - expected) ** 2)) / expected.std())
    assert 3e-4 < error < 1.5e-3, f"blocks of {MOST_PRODUCTS}"


@pytest.mark.parametrize("width", [7, 8])
@pytest.mark.parametrize(
    ("channels", "filter_side", "in_place"),
    [(16, 1, True), (128, 1, True), (68, 1, False), (7, 1, False), (16, 3, False)],
    ids=str,
)
def test_pictures_that_are_float16_already(
    channels: int,
    filter_side: int,
    in_place: bool,
    width: int,
    boards: Callable[[str], Board],
    tmp_path: Path,
) -> None:
    """Between convolutions: what is read and what is written."""
    case = conv_cases.Conv(
        why="float16 in memory",
        size=(5, width),
        channels=channels,
        filters=24,
        kernel=(filter_side, filter_side),
        padding=(filter_side // 2,) * 4,
    )
    data, weight = case.arrays()
    layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
    square = relax.const(np.eye(channels, dtype="float32").reshape(channels, 1, 1, channels))
    last = relax.const(np.ones((8, 1, 1, 24), "float32"))

    def emit(builder: Any, x: Any) -> Any:
        x = builder.emit(relax.op.nn.conv2d(x, square, **layouts))
        y = relax.op.nn.conv2d(x, relax.const(weight), padding=case.padding, **layouts)
        return builder.emit(relax.op.nn.conv2d(builder.emit(y), last, **layouts))

    target = get_target("cortex-a76").at_precision("fp16")
    _, middle, _ = kernels_of(emit, [data], target, "fp16")
    assert middle.outputs[0][1] == "float16"
    given = (data.astype(np.float16), *middle.arguments[1:])
    chosen = [middle.decisions[i] for i in {0, len(middle.decisions) // 2}]
    text = middle.template.apply(middle.func, middle.workload, chosen[0]).mod.script()
    assert ("pad" in text) != in_place  # 68 channels are filled up to two blocks of 36
    kernel = dataclasses.replace(middle, arguments=given)
    results = run_on_board(kernel, chosen, target, boards(core_of(target)), tmp_path)
    expected = _expected(case, data, weight)
    for decision, (result,) in zip(chosen, results, strict=True):
        # The sums are rounded as they are stored, to one of two neighbours.
        assert_close(result.astype("f4"), expected, rtol=2**-10, atol=1e-6, name=str(decision))

"""Convolutions of bfloat16 products against the definition: dot products and matrix tiles."""

from __future__ import annotations

import pytest
from conv_cases import CASES, Conv, check, compiled, every, some
from tvmdet.targets import Target, get_target

BF16_CASES = [case for case in CASES if case.groups == 1 and case.channels > 1]


@pytest.mark.parametrize("case", BF16_CASES[:4], ids=lambda case: case.why)
def test_bf16_is_compiled_where_it_cannot_run(case: Conv) -> None:
    target = get_target("x86-64-v4").at_precision("bf16")
    compiled(case, target, "bf16")


@pytest.mark.parametrize("case", BF16_CASES, ids=lambda case: case.why)
def test_bf16_is_right(case: Conv, bf16_target: Target) -> None:
    check(case, bf16_target, some(bf16_target), "bf16")


@pytest.mark.slow
@pytest.mark.parametrize("case", BF16_CASES, ids=lambda case: case.why)
def test_every_bf16_decision_is_right(case: Conv, bf16_target: Target) -> None:
    check(case, bf16_target, every, "bf16")


TILE_CASES = [
    *BF16_CASES,
    Conv(why="two tiles of pixels by two of filters", size=(8, 12), channels=64, filters=64),
    Conv(why="filters of several blocks, cut off", size=(7, 16), channels=96, filters=72),
    Conv(why="a last step that starts earlier", size=(6, 9), channels=80, filters=32),
    Conv(why="the same of joined taps", size=(6, 9), channels=40, filters=32, epilogue="silu"),
    Conv(why="joined taps of vectors, stride 2", size=(10, 14), channels=48, strides=(2, 2)),
    Conv(why="joined taps, stride beyond the kernel", size=(9, 12), channels=6, strides=(4, 4)),
    Conv(why="joined taps, dilated rows", size=(9, 12), channels=5, dilation=(2, 1)),
    Conv(why="not joined: dilated columns", size=(9, 12), channels=5, dilation=(1, 2)),
    Conv(why="dilated with strides", size=(13, 15), channels=34, dilation=(2, 2), strides=(2, 2)),
    Conv(why="a prime number of rows", size=(19, 19), channels=64, filters=48, epilogue="residual"),
    Conv(why="batch 3 of little pictures", size=(3, 3), channels=72, filters=64, batch=3),
]


@pytest.mark.parametrize("case", TILE_CASES[::4], ids=lambda case: case.why)
def test_matrix_tiles_are_compiled_where_they_cannot_run(case: Conv) -> None:
    target = get_target("sapphirerapids").at_precision("bf16")
    assert all("llvm.x86.tdpbf16ps" in text for text in compiled(case, target, "amx"))


@pytest.mark.parametrize("case", TILE_CASES, ids=lambda case: case.why)
def test_matrix_tiles_are_right(case: Conv, amx_target: Target) -> None:
    check(case, amx_target, lambda n: sorted({0, n // 4, n // 2, n - 1}), "amx")


@pytest.mark.slow
@pytest.mark.parametrize("case", TILE_CASES, ids=lambda case: case.why)
def test_every_decision_of_matrix_tiles_is_right(case: Conv, amx_target: Target) -> None:
    check(case, amx_target, every, "amx")

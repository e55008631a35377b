"""Compiled ARM kernels on an emulated board, against numpy, at awkward sizes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arm_kernels import Board, core_of, run_on_board
from assertions import assert_close
from scheduled_kernels import only_kernel
from tvmdet.targets import get_target, list_targets

sys.path.append(str(Path(__file__).parents[1] / "schedules"))
import conv_cases
import test_attention as attention_cases
import test_batch_matmul as matmul_cases

pytestmark = pytest.mark.arm

CORES = [target.name for target in list_targets() if target.family == "arm"]


def check(
    case: conv_cases.Conv, algorithm: str, name: str, boards: Callable[[str], Board], folder: Path
) -> None:
    target = get_target(name)
    emit, inputs, expected, atol = conv_cases.network(case, algorithm)
    kernel = only_kernel(emit, inputs, target, algorithm)
    assert kernel.template.name.startswith("arm.")
    count = len(kernel.decisions)
    chosen = [kernel.decisions[i] for i in sorted({0, count // 2, count - 1})]
    results = run_on_board(kernel, chosen, target, boards(core_of(target)), folder)
    for decision, (result,) in zip(chosen, results, strict=True):
        assert_close(result, expected, rtol=3e-5, atol=atol, name=f"{case.why}: {decision}")


@pytest.mark.parametrize("case", conv_cases.CASES[::2], ids=lambda case: case.why)
def test_convolutions(
    case: conv_cases.Conv, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    check(case, "direct", "cortex-a72", boards, tmp_path)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_tiles_that_do_not_divide_a_row(
    stride: int, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    """The pixels that a tile loads as vectors are those of its place, at every stride."""
    case = dataclasses.replace(
        conv_cases.CASES[0],
        why=f"stride {stride}",
        size=(5, 9 * stride),
        channels=8,
        filters=16,
        kernel=(3, 3),
        strides=(stride, stride),
        padding=(1, 1, 1, 1),
    )
    target = get_target("cortex-a76")
    emit, inputs, expected, atol = conv_cases.network(case, "direct")
    kernel = only_kernel(emit, inputs, target, "direct")
    width = expected.shape[2]
    ragged = [d for d in kernel.decisions if d["order"] != "depth" and width % d["tile_w"]]
    chosen = ragged[:: max(1, len(ragged) // 8)]
    assert chosen
    results = run_on_board(kernel, chosen, target, boards(core_of(target)), tmp_path)
    for decision, (result,) in zip(chosen, results, strict=True):
        assert_close(result, expected, rtol=3e-5, atol=atol, name=f"{case.why}: {decision}")


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4", "winograd6"])
@pytest.mark.parametrize("case", conv_cases.WINOGRAD_CASES[::5], ids=lambda case: case.why)
def test_winograd(
    case: conv_cases.Conv, algorithm: str, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    check(case, algorithm, "cortex-a76", boards, tmp_path)


@pytest.mark.parametrize("channels", [7, 8, 9, 15, 16, 17, 31, 33])
@pytest.mark.parametrize("name", CORES)
def test_channels_around_the_vector(
    channels: int, name: str, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    """On every core, emulated as itself where QEMU knows it: no instruction that it lacks."""
    case = dataclasses.replace(
        conv_cases.CASES[0],
        why=f"{channels} channels on {name}",
        size=(5, 7),
        channels=channels,
        filters=channels + 1,
        kernel=(3, 3),
        padding=(1, 1, 1, 1),
        groups=1,
        epilogue="bias relu",
    )
    check(case, "direct", name, boards, tmp_path)


@pytest.mark.parametrize(
    "shape", [(1, 5, 7, 9), (3, 16, 8, 12), (2, 1, 33, 4), (2, 31, 16, 37)], ids=str
)
def test_batch_matmul(
    shape: tuple[int, ...], boards: Callable[[str], Board], tmp_path: Path
) -> None:
    target = get_target("cortex-a72")
    lead, rows, depth, columns = shape
    rng = np.random.default_rng(0)
    left = rng.standard_normal((lead, rows, depth)).astype("float32")
    right = rng.standard_normal((lead, depth, columns)).astype("float32")

    def emit(builder, a, b):  # type: ignore[no-untyped-def]
        return builder.emit(matmul_cases.relax.op.matmul(a, b))

    kernel = only_kernel(emit, [left, right], target)
    results = run_on_board(
        kernel, list(kernel.decisions[:4]), target, boards(core_of(target)), tmp_path
    )
    for (result,) in results:
        assert_close(result, left.astype("f8") @ right, rtol=1e-5, atol=1e-5, name=str(shape))


@pytest.mark.parametrize("shape", attention_cases.SHAPES[2::2], ids=str)
def test_attention(
    shape: attention_cases.Shape, boards: Callable[[str], Board], tmp_path: Path
) -> None:
    target = get_target("cortex-a76")
    inputs = attention_cases._inputs(shape)
    kernel = only_kernel(lambda b, *t: attention_cases._emit(b, t, 0.25), inputs, target)
    assert kernel.template.name == "arm.attention"
    chosen = [kernel.decisions[0], kernel.decisions[-1]]
    expected = attention_cases._expected(inputs, 0.25)
    results = run_on_board(kernel, chosen, target, boards(core_of(target)), tmp_path)
    for decision, (result,) in zip(chosen, results, strict=True):
        assert_close(result, expected, rtol=2e-5, atol=2e-6, name=f"{shape}: {decision}")

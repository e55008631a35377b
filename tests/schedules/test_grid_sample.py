"""Bilinear sampling against its definition, at odd sizes and outside the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assertions import assert_close
from scheduled_kernels import only_kernel, run_decisions
from tvm import relax
from tvmdet.targets import Target


def _reference(data: np.ndarray, grid: np.ndarray, border: bool, align: bool) -> np.ndarray:
    """Samples NHWC data at points ``[N, 2, H, W]``, in float64 but for the points' places."""
    batch, height, width, channels = data.shape
    result = np.zeros((batch, *grid.shape[2:], channels))
    one, half = np.float32(1), np.float32(0.5)
    for n, i, j in np.ndindex(result.shape[:3]):
        place = []
        for value, size in ((grid[n, 1, i, j], height), (grid[n, 0, i, j], width)):
            scale = np.float32((size - 1) / 2 if align else size / 2)
            where = (value + one) * scale if scale else np.float32(0)  # also for infinity
            where = np.float32(size + 1) if np.isnan(where) else where
            where = where if align else where - half
            place.append(float(np.clip(where, 0, size - 1) if border else where))
        y, x = place
        for row in (np.floor(y), np.floor(y) + 1):
            for column in (np.floor(x), np.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    result[n, i, j] += weight * data[n, int(row), int(column)].astype(np.float64)
    return result


def _draw(shape: tuple[int, ...], points: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns a picture and points in it, outside it, far away, and on corners."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal(shape).astype("float32")
    grid = rng.uniform(-1.4, 1.4, (shape[0], 2, *points)).astype("float32")
    flat = grid.reshape(-1)
    special = np.array([-1, 1, 0, -1e30, 1e30, np.inf, -np.inf, -1 - 1e-6], "float32")
    flat[: len(special)] = special
    return data, flat.reshape(grid.shape)


def _emit(border: bool = False, align: bool = False) -> Any:
    def emit(builder: relax.BlockBuilder, data: Any, grid: Any) -> Any:
        return builder.emit(
            relax.op.image.grid_sample(
                data,
                grid,
                layout="NHWC",
                padding_mode="border" if border else "zeros",
                align_corners=align,
            )
        )

    return emit


CASES = {
    "whole vectors": ((2, 8, 9, 32), (30, 4)),
    "one channel": ((1, 5, 7, 1), (9, 5)),
    "seventeen channels": ((1, 5, 7, 17), (3, 7)),
    "many channels": ((1, 4, 4, 144), (2, 11)),
    "one pixel": ((1, 1, 1, 8), (4, 4)),
    "a row of pixels": ((3, 1, 6, 12), (1, 17)),
    "enough for all cores": ((2, 6, 5, 16), (61, 37)),
}


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_sizes(name: str, border: bool, align: bool, target: Target) -> None:
    data, grid = _draw(*CASES[name])
    kernel = only_kernel(_emit(border, align), [data, grid], target)
    assert kernel.template.name == "common.grid_sample"
    ((got,),) = run_decisions(kernel, kernel.decisions, target)
    assert_close(got, _reference(data, grid, border, align), atol=1e-5)


def test_a_point_that_is_no_number_is_outside(target: Target) -> None:
    data, grid = _draw((1, 5, 7, 8), (4, 5))
    grid[0, 0, 2, 3] = np.nan
    kernel = only_kernel(_emit(), [data, grid], target)
    want = _reference(data, grid, False, False)
    assert np.all(want[0, 2, 3] == 0)
    ((got,),) = run_decisions(kernel, kernel.decisions, target)
    assert_close(got, want, atol=1e-5)


@pytest.mark.parametrize("channels", [16, 5])
def test_pictures_and_samples_may_be_views(channels: int, target: Target) -> None:
    """As in deformable attention: two levels of one tensor, sampled and concatenated."""
    rng = np.random.default_rng(1)
    heads, queries, points = 2, 37, 4
    sizes = ((5, 6), (3, 2))
    cells = sum(h * w for h, w in sizes)
    values = rng.standard_normal((1, cells, heads * channels)).astype("float32")
    places = rng.uniform(-1.2, 1.2, (2, queries, heads, points, 2)).astype("float32")

    def emit(builder: relax.BlockBuilder, value: Any, *grids: Any) -> Any:
        samples, start = [], 0
        for (height, width), grid in zip(sizes, grids, strict=True):
            stop = start + height * width
            part = builder.emit(relax.op.strided_slice(value, [1], [start], [stop]))
            part = builder.emit(relax.op.reshape(part, (height, width, heads, channels)))
            part = builder.emit(relax.op.permute_dims(part, [2, 0, 1, 3]))
            at = builder.emit(relax.op.permute_dims(grid, [1, 3, 0, 2]))
            made = builder.emit(relax.op.image.grid_sample(part, at, layout="NHWC"))
            samples.append(builder.emit(relax.op.reshape(made, (heads, queries, 1, points, -1))))
            start = stop
        return builder.emit(relax.op.concat(samples, axis=2))

    kernel = only_kernel(emit, [values, *places], target)
    assert kernel.template.name == "common.grid_sample"
    ((got,),) = run_decisions(kernel, kernel.decisions, target)
    want, start = [], 0
    for (height, width), grid in zip(sizes, places, strict=True):
        stop = start + height * width
        data = values[0, start:stop].reshape(height, width, heads, channels).transpose(2, 0, 1, 3)
        want.append(_reference(data, grid.transpose(1, 3, 0, 2), False, False))
        start = stop
    assert_close(got, np.stack(want, axis=2), atol=1e-5)


AROUND = {
    "an activation before it": (lambda d: relax.op.nn.relu(d), lambda s: s),
    "a sum after it": (lambda d: d, lambda s: relax.op.add(s, relax.const(1.0))),
    "a transpose after it": (lambda d: d, lambda s: relax.op.permute_dims(s, [0, 3, 1, 2])),
    "more results than samples": (
        lambda d: d,
        lambda s: relax.op.broadcast_to(s, (3, 6, 7, 16)),
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_is_fused_around_it(name: str, target: Target) -> None:
    before, after = AROUND[name]
    data, grid = _draw((1, 5, 7, 16), (6, 7))

    def emit(builder: relax.BlockBuilder, x: Any, at: Any) -> Any:
        sample = relax.op.image.grid_sample(builder.emit(before(x)), at, layout="NHWC")
        return builder.emit(after(builder.emit(sample)))

    kernel = only_kernel(emit, [data, grid], target)
    assert kernel.template.name == "common.grid_sample"
    ((got,),) = run_decisions(kernel, kernel.decisions, target)
    picture = np.maximum(data, 0) if "before" in name else data
    want = _reference(picture, grid, False, False)
    if "sum" in name:
        want = want + 1
    elif "transpose" in name:
        want = want.transpose(0, 3, 1, 2)
    elif "more" in name:
        want = np.broadcast_to(want, (3, 6, 7, 16))
    assert_close(got, want, atol=1e-5)

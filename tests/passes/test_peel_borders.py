"""Pictures read where they lie: the same sums at every border, and nothing tested between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from scheduled_kernels import build, call_guarded, kernels_of
from tvm import relax, s_tir, tirx
from tvm.script import tirx as T
from tvmdet.targets import Target, get_target

from tvmdet.passes import cpu_pipeline
from tvmdet.passes.cpu_pipeline import PIPELINE
from tvmdet.passes.lower import tvm_target
from tvmdet.passes.peel_borders import BORDERS, peel_borders

ROWS, LANES, TILE = 4, 8, 4
V3 = get_target("x86-64-v3")


def _sums(columns: int, taps: int) -> tirx.PrimFunc:
    """Returns a depthwise convolution between zeros, in tiles of which the last ones overlap."""
    pad = taps // 2
    tile = min(TILE, columns)
    last = columns - tile

    @T.prim_func(s_tir=True)
    def main(
        x: T.Buffer((ROWS * columns * LANES,), "float32"),
        weights: T.Buffer((taps * taps * LANES,), "float32"),
        y: T.Buffer((ROWS * columns * LANES,), "float32"),
    ) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        with T.sblock("all"):
            sums = T.sblock_alloc_buffer((TILE * LANES,), scope="local")
            for h in T.serial(ROWS):
                for t in T.serial(-(-columns // tile), annotations={BORDERS: 1}):
                    for w in T.unroll(tile):
                        for c in T.vectorized(LANES):
                            sums[w * LANES + c] = T.float32(0)
                    for kh in T.serial(taps):
                        for kw in T.unroll(taps):
                            for w in T.unroll(tile):
                                for c in T.vectorized(LANES):
                                    sums[w * LANES + c] = (
                                        sums[w * LANES + c]
                                        + T.if_then_else(
                                            pad <= h + kh
                                            and h + kh < ROWS + pad
                                            and pad <= T.min(t * tile, last) + w + kw
                                            and T.min(t * tile, last) + w + kw < columns + pad,
                                            x[
                                                (
                                                    (h + kh - pad) * columns
                                                    + T.min(t * tile, last)
                                                    + w
                                                    + kw
                                                    - pad
                                                )
                                                * LANES
                                                + c
                                            ],
                                            T.float32(0),
                                        )
                                        * weights[(kh * taps + kw) * LANES + c]
                                    )
                    for w in T.unroll(tile):
                        for c in T.vectorized(LANES):
                            y[(h * columns + T.min(t * tile, last) + w) * LANES + c] = sums[
                                w * LANES + c
                            ]

    return main


def _expected(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    taps, pad = len(weights), len(weights) // 2
    framed = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (taps, taps), axis=(0, 1))
    return np.einsum("hwckl,klc->hwc", windows, weights)


@pytest.mark.parametrize("taps", [1, 3, 5, 13])
@pytest.mark.parametrize("columns", [1, 2, 4, 5, 8, 9, 12, 18, 37])
def test_every_column_of_every_row(columns: int, taps: int, target: Target) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, columns, LANES)).astype(np.float32)
    weights = rng.standard_normal((taps, taps, LANES)).astype(np.float32)
    built = tvm.tirx.build(_sums(columns, taps), tvm_target(target), PIPELINE)
    inputs = [x.reshape(-1), weights.reshape(-1)]
    (got,) = call_guarded(built["main"], inputs, [((x.size,), "float32")])
    np.testing.assert_allclose(got.reshape(x.shape), _expected(x, weights), rtol=1e-4, atol=1e-4)


def _peeled(columns: int, taps: int) -> list[Any]:
    """Returns the loops over tiles that are left."""
    passes = [s_tir.transform.ConvertBlocksToOpaque(), s_tir.transform.LowerOpaqueBlock()]
    func = _sums(columns, taps).with_attr("target", tvm_target(V3))
    lowered = tvm.transform.Sequential(passes)(tvm.IRModule({"main": func}))["main"]
    return _loops(peel_borders(lowered).body, "t")


def _loops(body: Any, name: str) -> list[Any]:
    found: list[Any] = []

    def look(loop: Any) -> None:
        if loop.loop_var.name.split("_")[0] == name:
            found.append(loop)

    tvm_ffi.structural_walk(body, (tirx.For, look))
    return found


def _tests(loop: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(loop, (tirx.IfThenElse, found.append))
    return found


def _tests_only_rows(loop: Any) -> bool:
    """Whether it is tested once for a row of taps what is above and below, and nothing else."""
    (rows,) = _loops(loop.body, "kh")
    inner = _loops(rows.body, "kw")
    return len(_tests(loop)) == len(_tests(rows)) == 2 and not any(map(_tests, inner))


@pytest.mark.parametrize(("taps", "left"), [(3, 8), (5, 8), (7, 8), (11, 6), (13, 6)])
def test_tiles_between_test_nothing_but_rows(taps: int, left: int) -> None:
    (loop,) = _peeled(40, taps)
    assert int(loop.extent) == left and BORDERS not in loop.annotations
    assert _tests_only_rows(loop)


def test_a_border_wider_than_two_tiles_is_a_loop_of_its_own() -> None:
    left, between, right = _peeled(80, 27)
    assert [int(loop.extent) for loop in (left, between, right)] == [4, 12, 4]
    assert _tests_only_rows(between)
    for loop in (left, right):
        (rows,) = _loops(loop.body, "kh")
        assert len(_tests(rows)) == 4


def test_a_picture_narrower_than_its_border_is_one_loop() -> None:
    (loop,) = _peeled(16, 35)
    assert int(loop.extent) == 4
    assert not _tests_only_rows(loop)


def test_a_picture_of_one_tile_has_no_loop_left() -> None:
    assert _peeled(4, 3) == []


def test_tests_that_always_hold_go() -> None:
    (loop,) = _peeled(40, 1)
    assert int(loop.extent) == 10 and BORDERS not in loop.annotations
    assert len(_tests(loop)) == 2, "of the row"
    assert not any(map(_tests, _loops(loop.body, "w")))


def test_a_loop_without_a_test_only_loses_its_mark() -> None:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((32,), "float32"), y: T.Buffer((32,), "float32")) -> None:
        for t in T.serial(8, annotations={BORDERS: 1}):
            for w in T.unroll(4):
                y[4 * t + w] = y[4 * t + w] + x[4 * t + w] * x[0]

    @T.prim_func(s_tir=True)
    def plain(x: T.Buffer((32,), "float32"), y: T.Buffer((32,), "float32")) -> None:
        for t in T.serial(8):
            for w in T.unroll(4):
                y[4 * t + w] = y[4 * t + w] + x[4 * t + w] * x[0]

    tvm.ir.assert_structural_equal(peel_borders(main).body, plain.body, map_free_vars=True)


@pytest.mark.parametrize(
    ("name", "precision"), [("x86-64-v4", "fp32"), ("x86-64-v4", "bf16"), ("cortex-a76", "fp16")]
)
def test_the_templates_kernels_are_peeled(
    name: str, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the picture is kept in 16 bits."""
    target = get_target(name).at_precision(precision)
    algorithm = {"fp32": "direct", "bf16": "bf16", "fp16": "fp16"}[precision]
    data = np.ones((1, 8, 40, 32), np.float32)

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        for filters, taps in ((32, 1), (32, 3), (16, 1)):
            groups = filters if taps > 1 else 1
            weight = np.ones((filters, taps, taps, 32 // groups), np.float32)
            layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "groups": groups}
            pad = [taps // 2] * 4
            conv = relax.op.nn.conv2d(x, relax.const(weight), padding=pad, **layouts)
            x = builder.emit(relax.op.nn.relu(builder.emit(conv)))
        return x

    kernels = kernels_of(emit, [data], target, algorithm)
    (kernel,) = (one for one in kernels if "depthwise" in one.template.name)
    sixteen = {str(array.dtype) for array in kernel.arguments} & {"uint16", "float16"}
    assert bool(sixteen) is (precision != "fp32")
    changed: list[tuple[Any, Any]] = []

    def spy(func: tirx.PrimFunc) -> tirx.PrimFunc:
        changed.append((func, peel_borders(func)))
        return changed[-1][1]

    monkeypatch.setattr(cpu_pipeline, "peel_borders", spy)
    schedule = kernel.template.apply(kernel.func, kernel.workload, kernel.decisions[0])
    build([schedule.mod["main"]], target)
    ((before, after),) = changed
    (marked,) = (loop for loop in _every_loop(before) if BORDERS in loop.annotations)
    assert not any(BORDERS in loop.annotations for loop in _every_loop(after))
    serial = [loop for loop in _every_loop(after) if loop.kind == tirx.ForKind.SERIAL]
    rows = [loop for loop in serial if isinstance(loop.body, tirx.IfThenElse)]
    within = [len(_tests(loop)) for loop in rows]
    assert len(rows) == 3, "the tiles on the left, between, and on the right"
    assert within[1] == 2 < min(within[0], within[2])
    assert int(marked.extent) > 2


def _every_loop(func: tirx.PrimFunc) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(func.body, (tirx.For, found.append))
    return found

"""Tiles that do not divide a loop start earlier, and stay within it."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.script import tirx as T
from tvmdet.schedules.common.overlap import overlap_tiles, split_overlapping

from tvmdet.passes.cpu_pipeline import PIPELINE


@T.prim_func(s_tir=True)
def _sums(
    a: T.Buffer((3, 19, 6), "float32"), b: T.Buffer((6, 8), "float32"), c: T.Buffer((3, 19, 8))
) -> None:
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    total = T.sblock_alloc_buffer((3, 19, 8))
    for row, column, channel, depth in T.grid(3, 19, 8, 6):
        with T.sblock("product"):
            r, w, o, k = T.axis.remap("SSSR", [row, column, channel, depth])
            with T.init():
                total[r, w, o] = T.float32(0)
            total[r, w, o] = total[r, w, o] + a[r, w, k] * b[k, o]
    for row, column, channel in T.grid(3, 19, 8):
        with T.sblock("last"):
            r, w, o = T.axis.remap("SSS", [row, column, channel])
            c[r, w, o] = T.max(total[r, w, o], T.float32(0))


def _tiled(tile: int) -> Schedule:
    schedule = Schedule(tvm.IRModule({"main": _sums}))
    product, last = schedule.get_sblock("product"), schedule.get_sblock("last")
    row, column, _ = schedule.get_loops(last)
    outer, inner = split_overlapping(schedule, column, tile)
    schedule.parallel(row)
    schedule.compute_at(product, outer, preserve_unit_loops=True)
    schedule.unroll(inner)
    schedule.decompose_reduction(product, schedule.get_loops(product)[-1])
    return overlap_tiles(schedule)


@pytest.mark.parametrize("tile", [1, 2, 5, 7, 10, 18, 19])
def test_a_tile_of_any_width_gives_the_same(tile: int) -> None:
    schedule = _tiled(tile)
    built = tvm.tirx.build(schedule.mod, tvm.target.Target({"kind": "llvm"}), PIPELINE)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((3, 19, 6), (6, 8)))
    got = tvm.runtime.tensor(np.full((3, 19, 8), np.nan, np.float32))
    built["main"](tvm.runtime.tensor(a), tvm.runtime.tensor(b), got)
    np.testing.assert_allclose(got.numpy(), np.maximum(a @ b, 0), rtol=1e-5, atol=1e-6)


def test_nothing_is_tested_where_tiles_overlap() -> None:
    target = tvm.target.Target({"kind": "llvm"})
    bind = tvm.tirx.transform.BindTarget(target.with_host(target))
    passes, _, _ = tvm.tirx.get_tir_pipeline("s_tir")
    text = passes(bind(_tiled(5).mod)).script()
    computed = text[text.index("compute_scope") :]
    assert "T.min" in computed
    assert "if " not in computed
    assert "T.min" not in passes(bind(_tiled(19).mod)).script()


def test_a_tile_wider_than_the_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="20 rounds does not fit"):
        _tiled(20)


def _strided() -> tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def main(a: T.Buffer((37, 8), "float32"), c: T.Buffer((18, 8), "float32")) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for column, channel, tap in T.grid(18, 8, 3):
            with T.sblock("sum"):
                w, o, k = T.axis.remap("SSR", [column, channel, tap])
                with T.init():
                    c[w, o] = T.float32(0)
                c[w, o] = c[w, o] + a[w * 2 + k, o]

    return main


@pytest.mark.parametrize("tile", [4, 5, 7])
def test_what_a_strided_tile_loads_moves_with_it(tile: int) -> None:
    schedule = Schedule(tvm.IRModule({"main": _strided()}))
    total = schedule.get_sblock("sum")
    column, *_ = schedule.get_loops(total)
    outer, _ = split_overlapping(schedule, column, tile)
    loaded = schedule.cache_read(total, 0, "global")
    schedule.compute_at(loaded, outer)
    built = tvm.tirx.build(
        overlap_tiles(schedule).mod, tvm.target.Target({"kind": "llvm"}), PIPELINE
    )
    a = np.random.default_rng(0).standard_normal((37, 8)).astype(np.float32)
    got = tvm.runtime.tensor(np.full((18, 8), np.nan, np.float32))
    built["main"](tvm.runtime.tensor(a), got)
    want = sum(a[k : k + 36 : 2] for k in range(3))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6, atol=1e-6)


def test_a_block_that_is_not_along_the_tile_is_refused() -> None:
    schedule = Schedule(tvm.IRModule({"main": _sums}))
    _, column, _ = schedule.get_loops(schedule.get_sblock("last"))
    _, inner = split_overlapping(schedule, column, 5)
    schedule.annotate(inner, "tvmdet.overlap", [5, 19])
    with pytest.raises(ValueError, match="no multiple of 5 rounds"):
        overlap_tiles(schedule)

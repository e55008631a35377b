"""The border of a picture that is read where it lies, without zeros around a copy of it.

A schedule then tests each pixel that a sum reads, and marks the loop over its tiles with
:data:`BORDERS`::

    for tile in range(13):                                  # marked
        for kh in range(3):
            for kw, w in unrolled(3, 6):
                for lane in vectorized(16):
                    sums[16 * w + lane] += if_then_else(
                        0 <= h + kh - 1 < 100 and 0 <= 6 * tile + w + kw - 1 < 76, x[...], 0
                    ) * weights[...]

Here (:func:`peel_borders`) a row beyond the picture is left out as a whole, before ``kw``. The
first and the last tile, or the first and the last two, become code of their own, in which the place
of each pixel is known when the loops are unrolled. Of a wider border all tiles are one loop that
tests each pixel. The tiles between are proven to lie inside and test nothing.

This file is also run where the package around it is not loaded (:mod:`.cpu_pipeline`): it may
import nothing of it but what imports nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Call, Op, TensorLoad
from tvm.ir.prim import Add, Cast, Mul

from tvmdet.passes.expressions import at_value, factors, reads

__all__ = ["BORDERS", "peel_borders"]

BORDERS: Final = "tvmdet.borders"
"""Annotation of the loop over tiles."""

_MOST_PEELED = 2
"""Tiles at either end, at most, each with code of its own."""


def peel_borders(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Returns a function whose marked loops are changed as described above.

    Args:
        func: Of a CPU, with flat buffers and loops that are marked as vectors, but no vectors yet.
    """
    loops: list[Any] = []

    def look(loop: Any) -> None:
        if BORDERS in loop.annotations:
            loops.append(loop)

    tvm_ffi.structural_walk(func.body, (tirx.For, look))
    if not loops:
        return func
    # An exception must not pass through TVM's walk: all is decided before it.
    peeled = {loop: _peeled(loop) for loop in loops}
    body = tvm_ffi.structural_map(func.body, (tirx.For, lambda loop: peeled.get(loop, loop)))
    # Code that is there twice defines its variables twice.
    rename: Any = tirx.transform.ConvertSSA()
    return rename(tvm.IRModule({"main": func.with_body(body)}))["main"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sum:
    """The sum within a marked loop.

    Attributes:
        loops: Around it, one directly in the other, the outermost first.
        store: What it does, without a test.
        rows: Conditions that are the same for all pixels of a row of a tile.
        columns: Those that are not.
    """

    loops: Sequence[Any]
    store: Any
    rows: Sequence[Any]
    columns: Sequence[Any]


def _peeled(loop: Any) -> Any:
    """Returns what a marked loop becomes; a loop without a sum to test only loses its mark."""
    kept = {key: value for key, value in loop.annotations.items() if key != BORDERS}

    def over(body: Any, first: int, end: int) -> Any:
        """Returns a loop over some of the tiles."""
        if (first, end) == (0, int(loop.extent)):
            return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, annotations=kept)
        kind = str(loop.loop_var.ty)
        tile = tirx.Var(loop.loop_var.name, kind)
        moved = at_value(body, loop.loop_var, tile + tirx.IntImm(kind, first))
        zero, extent = tirx.IntImm(kind, 0), tirx.IntImm(kind, end - first)
        return tirx.For(tile, zero, extent, loop.kind, moved, annotations=kept)

    found = _find_sum(loop)
    if found is None:
        return over(loop.body, 0, int(loop.extent))
    tiles = int(loop.extent)
    first, end = _between(loop, found)
    tested = _body(loop, found, found.columns)

    def border(begin: int, behind: int) -> list[Any]:
        if behind - begin > _MOST_PEELED:
            return [over(tested, begin, behind)]
        return [at_value(tested, loop.loop_var, tile) for tile in range(begin, behind)]

    parts = border(0, first)
    if first < end:
        parts.append(over(_body(loop, found, ()), first, end))
    parts += border(end, tiles)
    return tirx.SeqStmt(parts) if len(parts) > 1 else parts[0]


def _between(loop: Any, found: _Sum) -> tuple[int, int]:
    """Returns the first tile of those that lie inside, and the one behind the last."""
    tiles = int(loop.extent)

    def inside(first: int, end: int) -> bool:
        return all(_holds(loop, found, test, first, end) for test in found.columns)

    first = 0
    while first < tiles and not inside(first, first + 1):
        first += 1
    end = tiles
    while end > first and not inside(end - 1, end):
        end -= 1
    return (first, end) if first == end or inside(first, end) else (tiles, tiles)


def _holds(loop: Any, found: _Sum, test: Any, first: int, end: int) -> bool:
    """Returns whether a condition is proven to hold for all pixels of some tiles."""
    analyzer = sym.Analyzer()
    for inner in found.loops:
        analyzer.bind(inner.loop_var, tvm.ir.Range.from_min_extent(inner.min, inner.extent))
    kind = str(loop.loop_var.ty)
    begin, extent = tirx.IntImm(kind, first), tirx.IntImm(kind, end - first)
    analyzer.bind(loop.loop_var, tvm.ir.Range.from_min_extent(begin, extent))
    return bool(analyzer.can_prove(test))


def _body(loop: Any, found: _Sum, columns: Sequence[Any]) -> Any:
    """Returns the body of a marked loop that tests rows, and of the columns what is given."""
    left = [*found.rows, *columns]
    made = found.store
    for inner in reversed(found.loops):
        made = _if([test for test in left if reads(test, inner.loop_var)], made)
        left = [test for test in left if not reads(test, inner.loop_var)]
        notes = inner.annotations
        made = tirx.For(
            inner.loop_var, inner.min, inner.extent, inner.kind, made, annotations=notes
        )
    made = _if(left, made)
    outermost = found.loops[0]
    return tvm_ffi.structural_map(
        loop.body, (tirx.For, lambda one: made if one.same_as(outermost) else one)
    )


def _if(tests: Sequence[Any], body: Any) -> Any:
    """Returns a statement that is executed only where all conditions hold."""
    for test in reversed(tests):
        body = tirx.IfThenElse(test, body, None)
    return body


def _find_sum(loop: Any) -> _Sum | None:
    """Returns the sum in a marked loop whose pixels are tested; of several, that in most loops."""
    inner: list[Any] = []
    tvm_ffi.structural_walk(loop.body, (tirx.For, inner.append))
    found = [sum_ for sum_ in (_sum_in(loop, outermost) for outermost in inner) if sum_ is not None]
    # An inner loop's is found again with fewer loops around it.
    return max(found, key=lambda one: len(one.loops), default=None)


def _sum_in(loop: Any, outermost: Any) -> _Sum | None:
    """Returns the sum that is alone in a loop within a marked one, if its pixels are tested."""
    loops, body = [outermost], outermost.body
    while isinstance(body, tirx.For):
        loops.append(body)
        body = body.body
    split = _without_border(body)
    if split is None:
        return None
    store, tests = split
    within = (tirx.ForKind.UNROLLED, tirx.ForKind.VECTORIZED)
    of_tile = [loop.loop_var, *(one.loop_var for one in loops if one.kind in within)]
    rows: list[Any] = []
    columns: list[Any] = []
    for test in tests:
        (columns if any(reads(test, var) for var in of_tile) else rows).append(test)
    return _Sum(loops=loops, store=store, rows=rows, columns=columns)


def _without_border(store: Any) -> tuple[Any, list[Any]] | None:
    """Returns a store that adds a product to what is there, and what was tested of a factor.

    None where it is no such store, or nothing is tested.
    """
    if not isinstance(store, tirx.BufferStore) or not isinstance(store.value, Add):
        return None
    before, product = store.value.a, store.value.b
    if not isinstance(before, TensorLoad) or not before.source.same_as(store.buffer):
        return None
    plain, tests = _factor_without_border(product)
    if not tests:
        return None
    return tirx.BufferStore(store.buffer, before + plain, store.indices), tests


def _factor_without_border(value: Any) -> tuple[Any, list[Any]]:
    """Returns a product without the tests beyond which it is 0, and these."""
    if isinstance(value, Mul):
        left, tests = _factor_without_border(value.a)
        right, others = _factor_without_border(value.b)
        return (left * right, tests + others) if tests or others else (value, [])
    if isinstance(value, Cast):
        inner, tests = _factor_without_border(value.value)
        return (inner.astype(str(value.ty)), tests) if tests else (value, [])
    if isinstance(value, Call) and value.op == Op.get("prim.if_then_else"):
        condition, inside, outside = value.args
        if isinstance(outside, tirx.FloatImm) and float(outside.value) == 0:
            return inside, factors(condition)
    return value, []

"""Vectors of which only some lanes exist: the end of a row that is no multiple of a vector.

Where a schedule splits such a row and makes the inner loop a vector, each element is tested, and of
a vector whose elements are tested TVM makes a loop over scalars: so it computes the whole row. Here
(:func:`split_cases`) the test is made once a vector instead::

    for lane in vectorized(16):                 if 16 * j + 15 < 1125:
        if 16 * j + lane < 1125:                    for lane in vectorized(16):
            out[16 * j + lane] = f(...)                 out[16 * j + lane] = f(...)
                                                elif 16 * j < 1125:
                                                    the lanes that exist

The lanes that exist are one vector too where the CPU's loads and stores take a mask, and what does
not exist computes with zeros; elsewhere they are scalars. Values that are one thing in the lanes
that exist and another beyond, such as a border, are treated alike.

This file is also run where the package around it is not loaded
(:mod:`.cpu_pipeline`): it may import nothing of it but what imports nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Call, Op, TensorLoad
from tvm.ir.prim import LT, Broadcast, Div, FloorDiv, FloorMod, Mod, Ramp, Select

from tvmdet.passes.expressions import any_of, at_value, factors, reads

__all__ = ["split_cases"]


def split_cases(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Returns a function of a CPU whose vectors are tested as a whole, as described above.

    Args:
        func: With flat buffers and loops that are marked as vectors, but no vectors yet. Its
            target is known.
    """
    loops: list[Any] = []

    def look(loop: Any) -> None:
        if loop.kind == tirx.ForKind.VECTORIZED and isinstance(loop.extent, tirx.IntImm):
            loops.append(loop)

    tvm_ffi.structural_walk(func.body, (tirx.For, look))
    sizes = _sizes_with_masks(func.attrs["target"])
    # An exception must not pass through TVM's walk: all is decided before it.
    cut = {loop: cases for loop in loops if (cases := _cases(loop, sizes)) is not None}
    if not cut:
        return func
    return func.with_body(
        tvm_ffi.structural_map(func.body, (tirx.For, lambda loop: cut.get(loop, loop)))
    )


def _sizes_with_masks(target: Any) -> frozenset[int]:
    """Returns the sizes of elements, in bits, of which loads and stores take a mask."""
    has = tvm.get_global_func("target.target_has_feature")
    sizes: set[int] = set()
    if has("avx2", target):
        sizes |= {32, 64}
    if has("avx512bw", target) and has("avx512vl", target):
        sizes |= {8, 16}
    return frozenset(sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tested:
    """What a vector's loop does.

    Attributes:
        condition: Of what it does.
        inside: What it stores where the condition holds.
        outside: What it stores elsewhere, or None.
    """

    condition: Any
    inside: Any
    outside: Any


def _tested(body: Any) -> _Tested | None:
    """Returns what the body of a loop does, if it is one store with a condition."""
    if isinstance(body, tirx.IfThenElse):
        if body.else_case is not None or not isinstance(body.then_case, tirx.BufferStore):
            return None
        return _Tested(condition=body.condition, inside=body.then_case, outside=None)
    if not isinstance(body, tirx.BufferStore) or not isinstance(body.value, Call):
        return None
    if body.value.op != Op.get("prim.if_then_else"):
        return None
    condition, *values = body.value.args
    inside, outside = (tirx.BufferStore(body.buffer, value, body.indices) for value in values)
    return _Tested(condition=condition, inside=inside, outside=outside)


def _cases(loop: Any, sizes: frozenset[int]) -> Any:
    """Returns what a loop becomes, or None where its test is not of the kind described.

    Args:
        loop: Over the lanes of a vector.
        sizes: Of elements, in bits, of which the CPU can leave some alone.
    """
    lane, lanes = loop.loop_var, int(loop.extent)
    tested = _tested(loop.body)
    if tested is None:
        return None
    analyzer = sym.Analyzer()
    parts = factors(tested.condition)
    of_lane = [factor for factor in parts if reads(factor, lane)]
    of_others = [factor for factor in parts if not reads(factor, lane)]
    if len(of_lane) != 1 or not isinstance(of_lane[0], LT):
        return None
    (test,) = of_lane
    if reads(test.b, lane) or _step(analyzer, test.a, lane) != 1:
        return None
    exist = analyzer.simplify(test.b - at_value(test.a, lane, 0))
    rest = _masked(loop, tested, exist, sizes)
    if rest is None:
        rest = _over_lanes(loop, loop.body, tirx.ForKind.SERIAL)
    inside = _over_lanes(loop, tested.inside)
    outside = None if tested.outside is None else _over_lanes(loop, tested.outside)
    first, last = (analyzer.simplify(at_value(test, lane, number)) for number in (0, lanes - 1))
    cases = tirx.IfThenElse(
        last, _cases(inside, sizes) or inside, tirx.IfThenElse(first, rest, outside)
    )
    for other in reversed(of_others):
        cases = tirx.IfThenElse(other, cases, outside)
    return cases


def _over_lanes(loop: Any, body: Any, kind: Any = tirx.ForKind.VECTORIZED) -> Any:
    """Returns a loop over lanes of its own: no variable may have two definitions."""
    lane = tirx.Var(loop.loop_var.name, str(loop.loop_var.ty))
    return tirx.For(lane, loop.min, loop.extent, kind, at_value(body, loop.loop_var, lane))


def _step(analyzer: Any, expression: Any, lane: Any) -> int | None:
    """Returns by how much an expression grows from lane to lane, or None where that differs."""
    step = analyzer.simplify(at_value(expression, lane, lane + 1) - expression)
    return int(step) if isinstance(step, tirx.IntImm) else None


def _masked(loop: Any, tested: _Tested, exist: Any, sizes: frozenset[int]) -> Any:
    """Returns one vector of the lanes that exist, or None where masks do not allow it.

    Args:
        loop: Over the lanes.
        tested: What it does.
        exist: How many lanes exist.
        sizes: Of elements, in bits, of which the CPU can leave some alone.
    """
    store = _vector(_over_lanes(loop, tested.inside))
    if store is None or not isinstance(store.indices[0], Ramp) or _divides(store.value):
        return None
    loads: list[Any] = []
    tvm_ffi.structural_walk(store.value, (TensorLoad, loads.append))
    accesses = [(load.source, load.indices) for load in loads]
    if tested.outside is None:
        accesses.append((store.buffer, store.indices))
    if not all(_may_be_masked(*access, sizes) for access in accesses):
        return None
    lanes, kind = int(loop.extent), str(loop.loop_var.ty)
    mask = Ramp(tirx.IntImm(kind, 0), tirx.IntImm(kind, 1), lanes) < Broadcast(exist, lanes)

    def masked(load: Any) -> Any:
        if _is_whole(load.source, load.indices):
            return load
        return tirx.op.masked_load(str(load.ty), load.source, *load.indices, mask)

    value = tvm_ffi.structural_map(store.value, (TensorLoad, masked))
    if tested.outside is not None:
        outside = _vector(_over_lanes(loop, tested.outside))
        # What is outside may be read, and divided by, in the lanes beyond only.
        loaded = any_of(tested.outside.value, TensorLoad, lambda _: True)
        if outside is None or loaded or _divides(outside.value):
            return None
        return tirx.BufferStore(store.buffer, Select(mask, value, outside.value), store.indices)
    if _is_whole(store.buffer, store.indices):
        there = tirx.BufferLoad(store.buffer, store.indices)
        return tirx.BufferStore(store.buffer, Select(mask, value, there), store.indices)
    return tirx.Evaluate(tirx.op.masked_store(store.buffer, value, *store.indices, mask))


def _vector(loop: Any) -> Any:
    """Returns the store of a loop over lanes as one of a vector, or None where TVM has none."""
    vectorise: Any = tirx.transform.VectorizeLoop()
    made = vectorise(tvm.IRModule({"main": tirx.PrimFunc([], loop)}))["main"].body
    return made if isinstance(made, tirx.BufferStore) else None


def _divides(value: Any) -> bool:
    """Returns whether integers are divided by what a lane that does not exist may have as 0."""
    return any(
        any_of(value, kind, lambda one: not isinstance(one.b, tirx.IntImm | Broadcast))
        for kind in (Div, Mod, FloorDiv, FloorMod)
    )


def _may_be_masked(buffer: Any, indices: Any, sizes: frozenset[int]) -> bool:
    if _is_whole(buffer, indices):
        return True
    (index,) = indices
    neighbours = isinstance(index, Ramp) and isinstance(index.stride, tirx.IntImm)
    return neighbours and int(index.stride) == 1 and _bits(buffer.dtype) in sizes


def _bits(dtype: Any) -> int:
    return int(tvm.DataType(str(dtype)).bits)


def _is_whole(buffer: Any, indices: Any) -> bool:
    """Returns whether all that an access names exists: scalars, and vectors in registers.

    What lies in registers must not be masked: LLVM would keep it in memory.
    """
    (index,) = indices
    if not isinstance(index, Ramp):
        return int(tvm.DataType(str(index.ty)).lanes) == 1
    (size,) = buffer.shape
    if buffer.scope() != "local" or not isinstance(size, tirx.IntImm):
        return False
    if not isinstance(index.stride, tirx.IntImm) or int(index.stride) != 1:
        return False
    lanes = int(index.lanes)
    begin = sym.Analyzer().simplify(tirx.floormod(index.base, lanes))
    return int(size) % lanes == 0 and isinstance(begin, tirx.IntImm) and int(begin) == 0

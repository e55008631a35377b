"""LowerSorting: top-k, sort and argsort as compiled kernels.

TVM lowers them to calls of ``tvm.contrib.sort``, which lives in a library that a detector's
runtime does not load, and which sorts whole rows even where a few entries are wanted.

Strategy, for each row in parallel: order the positions as a binary heap, best value first, ties
by position (as ONNX has it), then take as many off it as are wanted. Building the heap is linear,
so a top-k costs ``n + k log n``.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmdet.passes.relax_tools import static_shape

__all__ = ["LowerSorting", "top_k_func"]

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour


def top_k_func(
    rows: int, length: int, k: int, dtype: str, index_dtype: str, *, largest: bool
) -> tirx.PrimFunc:
    """Returns the kernel: data ``[rows, length]`` in, values and positions ``[rows, k]`` out."""
    largest_first = int(largest)

    @T.prim_func(s_tir=True)
    def top_k(
        data: T.Buffer((rows, length), dtype),
        values: T.Buffer((rows, k), dtype),
        positions: T.Buffer((rows, k), index_dtype),
    ):
        T.func_attr({"op_pattern": _OPAQUE, "tirx.noalias": True})
        # A root block, because TVM asks every function that it may take for a reshape for one.
        with T.sblock("root"):
            for n in T.parallel(rows):
                heap = T.alloc_buffer((length,), "int32")
                size = T.alloc_buffer((1,), "int32", scope="local")
                start = T.alloc_buffer((1,), "int32", scope="local")
                taken = T.alloc_buffer((1,), "int32", scope="local")
                parent = T.alloc_buffer((1,), "int32", scope="local")
                child = T.alloc_buffer((1,), "int32", scope="local")
                entry = T.alloc_buffer((1,), "int32", scope="local")
                for i in T.serial(length):
                    heap[i] = i
                size[0] = length
                start[0] = length // 2
                taken[0] = 0
                # Each step sinks one entry to its place: first those that build the heap, from the
                # last parent up, then the one that refills the root after its entry was taken.
                while start[0] > 0 or taken[0] < k:
                    if start[0] > 0:
                        start[0] = start[0] - 1
                        parent[0] = start[0]
                        entry[0] = heap[parent[0]]
                    else:
                        values[n, taken[0]] = data[n, heap[0]]
                        positions[n, taken[0]] = T.cast(heap[0], index_dtype)
                        taken[0] = taken[0] + 1
                        size[0] = size[0] - 1
                        parent[0] = 0
                        entry[0] = heap[size[0]]
                    child[0] = 2 * parent[0] + 1
                    while child[0] < size[0]:
                        # Two ifs: TIR evaluates both sides of an `and`, even past the end.
                        if child[0] + 1 < size[0]:  # noqa: SIM102
                            if (
                                (
                                    largest_first == 1
                                    and data[n, heap[child[0] + 1]] > data[n, heap[child[0]]]
                                )
                                or (
                                    largest_first == 0
                                    and data[n, heap[child[0] + 1]] < data[n, heap[child[0]]]
                                )
                                or (
                                    data[n, heap[child[0] + 1]] == data[n, heap[child[0]]]
                                    and heap[child[0] + 1] < heap[child[0]]
                                )
                            ):
                                child[0] = child[0] + 1
                        if (
                            (largest_first == 1 and data[n, heap[child[0]]] > data[n, entry[0]])
                            or (largest_first == 0 and data[n, heap[child[0]]] < data[n, entry[0]])
                            or (
                                data[n, heap[child[0]]] == data[n, entry[0]]
                                and heap[child[0]] < entry[0]
                            )
                        ):
                            heap[parent[0]] = heap[child[0]]
                            parent[0] = child[0]
                            child[0] = 2 * parent[0] + 1
                        else:
                            child[0] = length + length
                    if size[0] > 0:
                        heap[parent[0]] = entry[0]

    return top_k


def _emit_top_k(
    builder: relax.BlockBuilder, data: Any, axis: int, k: int, index_dtype: str, *, largest: bool
) -> tuple[Any, Any]:
    """Emits values and positions along an axis."""
    shape = static_shape(data)
    rank = len(shape)
    axis %= rank
    order = [a for a in range(rank) if a != axis] + [axis]
    moved = order != list(range(rank))
    if moved:
        data = builder.emit(relax.op.permute_dims(data, order))
    lead = [shape[a] for a in order[:-1]]
    rows, length = math.prod(lead), shape[axis]
    k = length if k < 0 else min(k, length)
    dtype = str(data.ty.dtype)
    flat = builder.emit(relax.op.reshape(data, (rows, length)))
    func = top_k_func(rows, length, k, dtype, index_dtype, largest=largest)
    outputs = [relax.TensorType((rows, k), dtype), relax.TensorType((rows, k), index_dtype)]
    pair = builder.emit(relax.call_tir(builder.add_func(func, "top_k"), [flat], outputs))
    results = []
    for index in range(2):
        part = builder.emit(relax.op.reshape(builder.emit(pair[index]), (*lead, k)))
        if moved:
            back = [order.index(a) for a in range(rank)]
            part = builder.emit(relax.op.permute_dims(part, back))
        results.append(part)
    return results[0], results[1]


def _top_k(builder: relax.BlockBuilder, call: Any) -> Any:
    attrs = call.attrs
    values, positions = _emit_top_k(
        builder,
        call.args[0],
        int(attrs.axis),
        int(attrs.k),
        str(attrs.dtype),
        largest=bool(attrs.largest),
    )
    if attrs.ret_type == "both":
        return relax.Tuple([values, positions])
    return values if attrs.ret_type == "values" else positions


def _sort(builder: relax.BlockBuilder, call: Any) -> Any:
    largest = bool(call.attrs.descending)
    axis = int(call.attrs.axis)
    return _emit_top_k(builder, call.args[0], axis, -1, "int32", largest=largest)[0]


def _argsort(builder: relax.BlockBuilder, call: Any) -> Any:
    attrs = call.attrs
    dtype = str(attrs.dtype) or "int32"
    largest = bool(attrs.descending)
    return _emit_top_k(builder, call.args[0], int(attrs.axis), -1, dtype, largest=largest)[1]


_RULES = {"relax.topk": _top_k, "relax.sort": _sort, "relax.argsort": _argsort}


@tvm.ir.transform.module_pass(opt_level=0, name="LowerSorting")
class LowerSorting:
    """Module pass, before operators are legalised."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with sorting operators replaced by calls of kernels."""
        mutator = _Lowerer(mod)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                mutator.builder_.update_func(var, mutator.visit_expr(func))
        return mutator.builder_.get()


@relax.expr_functor.mutator
class _Lowerer(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        rule = _RULES.get(call.op.name) if isinstance(call.op, tvm.ir.Op) else None
        return call if rule is None else rule(self.builder_, call)

"""The kernel of top-k and of sorting, in TVMScript.

Strategy, for each row in parallel: order the positions as a binary heap, best value first, ties
by position (as ONNX has it), then take as many off it as are wanted. Building the heap is linear,
so a top-k costs ``n + k log n``.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from tvmdet.passes.kernel_marks import mark_kernel

__all__ = ["top_k_func"]

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

    return mark_kernel(
        top_k,
        "top_k",
        rows=rows,
        length=length,
        k=k,
        dtype=dtype,
        index_dtype=index_dtype,
        largest=largest,
    )

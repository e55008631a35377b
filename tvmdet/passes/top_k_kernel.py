"""The kernel of top-k and of sorting, in TVMScript.

Strategy, for each row in parallel: the ``k`` best so far lie in a binary heap, the worst of them on
top, ties by position (as ONNX has it). The rest of the row is compared with the worst one, which
few values beat once some have been seen; what beats it takes its place. At the end the heap is
emptied from its top into the result, from the back. A top-k of ``n`` random values costs ``n`` plus
``k log(n / k) log k``, and what is written often is ``k`` long, so that it stays in a cache.
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
                keys = T.alloc_buffer((k,), dtype)
                places = T.alloc_buffer((k,), "int32")
                key = T.alloc_buffer((1,), dtype, scope="local")
                place = T.alloc_buffer((1,), "int32", scope="local")
                size = T.alloc_buffer((1,), "int32", scope="local")
                start = T.alloc_buffer((1,), "int32", scope="local")
                ahead = T.alloc_buffer((1,), "int32", scope="local")
                stop = T.alloc_buffer((1,), "int32", scope="local")
                parent = T.alloc_buffer((1,), "int32", scope="local")
                child = T.alloc_buffer((1,), "int32", scope="local")
                for i in T.serial(k):
                    keys[i] = data[n, i]
                    places[i] = i
                size[0] = k
                start[0] = k // 2
                ahead[0] = k
                # Each step sinks one entry to its place: first those that build the heap, from the
                # last parent up; then what beats the top of it; then, until it is empty, the last
                # one, after the top was taken.
                while size[0] > 0:
                    parent[0] = 0
                    if start[0] > 0:
                        start[0] = start[0] - 1
                        parent[0] = start[0]
                        key[0] = keys[parent[0]]
                        place[0] = places[parent[0]]
                    else:
                        key[0] = keys[0]
                        stop[0] = length
                        # Of equals the first one stays.
                        while ahead[0] < stop[0]:
                            if (largest_first == 1 and data[n, ahead[0]] > key[0]) or (
                                largest_first == 0 and data[n, ahead[0]] < key[0]
                            ):
                                stop[0] = ahead[0]
                            else:
                                ahead[0] = ahead[0] + 1
                        if ahead[0] < length:
                            key[0] = data[n, ahead[0]]
                            place[0] = ahead[0]
                            ahead[0] = ahead[0] + 1
                        else:
                            size[0] = size[0] - 1
                            values[n, size[0]] = keys[0]
                            positions[n, size[0]] = T.cast(places[0], index_dtype)
                            key[0] = keys[size[0]]
                            place[0] = places[size[0]]
                    child[0] = 2 * parent[0] + 1
                    while child[0] < size[0]:
                        # Two ifs: TIR evaluates both sides of an `and`, even past the end.
                        if child[0] + 1 < size[0]:  # noqa: SIM102
                            if (
                                (largest_first == 1 and keys[child[0] + 1] < keys[child[0]])
                                or (largest_first == 0 and keys[child[0] + 1] > keys[child[0]])
                                or (
                                    keys[child[0] + 1] == keys[child[0]]
                                    and places[child[0] + 1] > places[child[0]]
                                )
                            ):
                                child[0] = child[0] + 1
                        if (
                            (largest_first == 1 and keys[child[0]] < key[0])
                            or (largest_first == 0 and keys[child[0]] > key[0])
                            or (keys[child[0]] == key[0] and places[child[0]] > place[0])
                        ):
                            keys[parent[0]] = keys[child[0]]
                            places[parent[0]] = places[child[0]]
                            parent[0] = child[0]
                            child[0] = 2 * parent[0] + 1
                        else:
                            child[0] = k + k
                    keys[parent[0]] = key[0]
                    places[parent[0]] = place[0]

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

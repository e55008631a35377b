"""Tensor-core operations of one warp as TVM tensor intrinsics: a tile of loops becomes one call.

The calls are those of ``device/mma.cuh``, which says how the fragments of a tile lie in each lane.
A fragment lives in "local" memory, one array per thread. TVM gives it a whole tile's elements; a
lane uses the first few of the tile's first row, by constant indices, and nvcc keeps those alone, in
registers.

Registered here and not taken from ``tvm.s_tir.tensor_intrin``, whose import builds those of
every target for half a minute.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

import functools

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

__all__ = ["DEPTH", "intrinsics"]

DEPTH = {"fp16": 16, "tf32": 8}
"""Of one product of tiles, by algorithm; rows and columns are 16."""

_FACTOR = {"fp16": "float16", "tf32": "float32"}


@functools.cache
def intrinsics(algorithm: str) -> dict[str, str]:
    """Registers the intrinsics of an algorithm; returns their names by ``fill``, ``left`` etc."""
    made = {
        "fill": _fill(),
        "store": _store(),
        "left": _load(algorithm, 16, DEPTH[algorithm], "left"),
        "right": _load(algorithm, DEPTH[algorithm], 16, "right"),
        "multiply": _multiply(algorithm),
    }
    names = {}
    for what, (description, implementation) in made.items():
        names[what] = f"tvmdet.{algorithm}.{what}"
        TensorIntrin.register(names[what], description, implementation, override=True)
    return names


def _fill():
    @T.prim_func(s_tir=True)
    def description(c: T.handle) -> None:
        C = T.match_buffer(c, (16, 16), "float32", offset_factor=16, scope="local")
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:16, 0:16])
            for i, j in T.grid(16, 16):
                with T.sblock("init"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = T.float32(0)

    @T.prim_func(s_tir=True)
    def implementation(c: T.handle) -> None:
        c1 = T.int32()
        c0 = T.int32()
        C = T.match_buffer(
            c, (16, 16), "float32", offset_factor=16, scope="local", strides=[c1, c0]
        )
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:16, 0:16])
            T.evaluate(
                T.call_extern(
                    "int32",
                    "tvmdet_fill",
                    T.address_of(C[0, 0]),
                )
            )

    return description, implementation


def _store():
    @T.prim_func(s_tir=True)
    def description(c: T.handle, d: T.handle) -> None:
        C = T.match_buffer(c, (16, 16), "float32", offset_factor=16, scope="local")
        D = T.match_buffer(d, (16, 16), "float32", offset_factor=4, scope="shared.dyn")
        with T.sblock("root"):
            T.reads(C[0:16, 0:16])
            T.writes(D[0:16, 0:16])
            for i, j in T.grid(16, 16):
                with T.sblock("store"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    D[vi, vj] = C[vi, vj]

    @T.prim_func(s_tir=True)
    def implementation(c: T.handle, d: T.handle) -> None:
        c1 = T.int32()
        c0 = T.int32()
        d1 = T.int32()
        d0 = T.int32()
        C = T.match_buffer(
            c, (16, 16), "float32", offset_factor=16, scope="local", strides=[c1, c0]
        )
        D = T.match_buffer(
            d, (16, 16), "float32", offset_factor=4, scope="shared.dyn", strides=[d1, d0]
        )
        with T.sblock("root"):
            T.reads(C[0:16, 0:16])
            T.writes(D[0:16, 0:16])
            T.evaluate(
                T.call_extern(
                    "int32",
                    "tvmdet_store",
                    D.access_ptr("w"),
                    d1,
                    T.address_of(C[0, 0]),
                )
            )

    return description, implementation


def _load(algorithm: str, rows: int, columns: int, which: str):
    dtype = _FACTOR[algorithm]
    function = f"tvmdet_load_{which}_{'f16' if algorithm == 'fp16' else algorithm}"

    @T.prim_func(s_tir=True)
    def description(a: T.handle, f: T.handle) -> None:
        A = T.match_buffer(a, (rows, columns), dtype, offset_factor=8, scope="shared.dyn")
        F = T.match_buffer(f, (rows, columns), dtype, offset_factor=8, scope="local")
        with T.sblock("root"):
            T.reads(A[0:rows, 0:columns])
            T.writes(F[0:rows, 0:columns])
            for i, j in T.grid(rows, columns):
                with T.sblock("load"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    F[vi, vj] = A[vi, vj]

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, f: T.handle) -> None:
        a1 = T.int32()
        a0 = T.int32()
        f1 = T.int32()
        f0 = T.int32()
        A = T.match_buffer(
            a, (rows, columns), dtype, offset_factor=8, scope="shared.dyn", strides=[a1, a0]
        )
        F = T.match_buffer(
            f, (rows, columns), dtype, offset_factor=8, scope="local", strides=[f1, f0]
        )
        with T.sblock("root"):
            T.reads(A[0:rows, 0:columns])
            T.writes(F[0:rows, 0:columns])
            T.evaluate(
                T.call_extern(
                    "int32",
                    function,
                    T.address_of(F[0, 0]),
                    A.access_ptr("r"),
                    a1,
                )
            )

    return description, implementation


def _multiply(algorithm: str):
    dtype, depth = _FACTOR[algorithm], DEPTH[algorithm]
    function = f"tvmdet_multiply_{'f16' if algorithm == 'fp16' else algorithm}"
    halves = algorithm == "fp16"

    @T.prim_func(s_tir=True)
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (16, depth), dtype, offset_factor=8, scope="local")
        B = T.match_buffer(b, (depth, 16), dtype, offset_factor=8, scope="local")
        C = T.match_buffer(c, (16, 16), "float32", offset_factor=16, scope="local")
        with T.sblock("root"):
            T.reads(C[0:16, 0:16], A[0:16, 0:depth], B[0:depth, 0:16])
            T.writes(C[0:16, 0:16])
            for i, j, k in T.grid(16, 16, depth):
                with T.sblock("update"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    if halves:
                        C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], "float32") * T.cast(
                            B[vk, vj], "float32"
                        )
                    else:
                        C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, b: T.handle, c: T.handle) -> None:
        a1 = T.int32()
        a0 = T.int32()
        b1 = T.int32()
        b0 = T.int32()
        c1 = T.int32()
        c0 = T.int32()
        A = T.match_buffer(a, (16, depth), dtype, offset_factor=8, scope="local", strides=[a1, a0])
        B = T.match_buffer(b, (depth, 16), dtype, offset_factor=8, scope="local", strides=[b1, b0])
        C = T.match_buffer(
            c, (16, 16), "float32", offset_factor=16, scope="local", strides=[c1, c0]
        )
        with T.sblock("root"):
            T.reads(C[0:16, 0:16], A[0:16, 0:depth], B[0:depth, 0:16])
            T.writes(C[0:16, 0:16])
            T.evaluate(
                T.call_extern(
                    "int32",
                    function,
                    T.address_of(C[0, 0]),
                    T.address_of(A[0, 0]),
                    T.address_of(B[0, 0]),
                )
            )

    return description, implementation

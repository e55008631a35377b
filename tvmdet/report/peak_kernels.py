"""The kernels that a machine's peak is measured with, in TVMScript.

Arithmetic: every thread keeps independent chains of fused multiply-adds in registers, more of them
than latency times throughput (4 to 5 cycles, 2 a cycle), and touches memory only at the end. What
it reaches is the most that any kernel could. The multipliers are read from memory, so that the
compiler cannot know them, and keep the sums finite.

Bandwidth: every thread adds up its part of an array, several vectors at once.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

__all__ = ["CHAINS", "f32_chains", "read_sum"]

CHAINS = 12
"""Independent sums of one thread; 16 vector registers have room for them and the operands."""


def f32_chains(threads: int, steps: int, lanes: int, chains: int) -> tirx.PrimFunc:
    """Returns a kernel of ``2 * threads * steps * chains * lanes`` float32 operations."""

    @T.prim_func(s_tir=True)
    def main(
        factors: T.Buffer((2, lanes), "float32"),
        sums: T.Buffer((threads, chains, lanes), "float32"),
    ):
        T.func_attr({"tirx.noalias": True})
        for t in T.parallel(threads):
            kept = T.alloc_buffer((chains, lanes), "float32", scope="local")
            for c in T.unroll(chains):
                for v in T.vectorized(lanes):
                    kept[c, v] = sums[t, c, v]
            for _s in range(steps):
                for c in T.unroll(chains):
                    for v in T.vectorized(lanes):
                        kept[c, v] = kept[c, v] * factors[0, v] + factors[1, v]
            for c in T.unroll(chains):
                for v in T.vectorized(lanes):
                    sums[t, c, v] = kept[c, v]

    return main


def read_sum(threads: int, passes: int, rows: int, lanes: int, chains: int) -> tirx.PrimFunc:
    """Returns a kernel that reads ``threads * rows * chains * lanes`` values ``passes`` times."""

    @T.prim_func(s_tir=True)
    def main(
        data: T.Buffer((threads, rows, chains, lanes), "float32"),
        sums: T.Buffer((threads, chains, lanes), "float32"),
    ):
        T.func_attr({"tirx.noalias": True})
        for t in T.parallel(threads):
            kept = T.alloc_buffer((chains, lanes), "float32", scope="local")
            for c in T.unroll(chains):
                for v in T.vectorized(lanes):
                    kept[c, v] = 0.0
            for _p in range(passes):
                for r in range(rows):
                    for c in T.unroll(chains):
                        for v in T.vectorized(lanes):
                            kept[c, v] = kept[c, v] + data[t, r, c, v]
            for c in T.unroll(chains):
                for v in T.vectorized(lanes):
                    sums[t, c, v] = kept[c, v]

    return main

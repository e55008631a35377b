"""Parallel loops that threads share round by round, and sums on the stack: the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T

from tvmdet.passes.cpu_pipeline import PIPELINE
from tvmdet.runtime.native import configure_workers
from tvmdet.runtime.threads import native_thread

TARGET = {"kind": "llvm"}


def _marking(rounds: int, kind: str) -> tirx.PrimFunc:
    """Writes to row ``i``, in round ``i``, what was there, one more, and the round."""

    @T.prim_func(s_tir=True)
    def main(
        before: T.Buffer((rounds,), "int32"),
        count: T.Buffer((rounds,), "int32"),
        which: T.Buffer((rounds,), "int32"),
    ) -> None:
        T.func_attr({"global_symbol": "main"})
        for i in T.parallel(T.Cast(kind, rounds)):
            with T.sblock("mark"):
                v = T.axis.spatial(rounds, T.Cast("int32", i))
                count[v] = before[v] + 1
                which[v] = v

    return main


def _run(threads: int, function: Callable[[], None]) -> None:
    native_thread(threads, configure_workers).submit(function).result()


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", ["int32", "int64"])
@pytest.mark.parametrize("rounds", [1, 2, 5, 255, 256, 1000])
def test_every_round_is_done_once(rounds: int, kind: str, threads: int) -> None:
    built = tvm.tirx.build(_marking(rounds, kind), tvm.target.Target(TARGET), PIPELINE)
    seen = tvm.runtime.tensor(np.zeros(rounds, np.int32))
    which = tvm.runtime.tensor(np.full(rounds, -1, np.int32))

    def run() -> None:
        for _ in range(20):
            built["main"](seen, seen, which)

    _run(threads, run)
    assert (seen.numpy() == 20).all()
    assert (which.numpy() == np.arange(rounds)).all()


def test_a_slow_round_does_not_hold_the_others_up() -> None:
    """The first round waits for all others; TVM's own partition gives its thread the next three."""

    # Without noalias, since other threads write what the first round reads.
    @T.prim_func(s_tir=True)
    def main(waited: T.Buffer((1,), "int32"), thread: T.Buffer((8,), "int32")) -> None:
        T.func_attr({"global_symbol": "main"})
        for i in T.parallel(8):
            thread[i] = T.call_extern("int32", "gettid")
            if i == 0:
                for _ in range(10_000):
                    if (
                        T.min(
                            T.min(T.min(thread[1], thread[2]), T.min(thread[3], thread[4])),
                            T.min(thread[5], T.min(thread[6], thread[7])),
                        )
                        == 0
                    ):
                        waited[0] = waited[0] + 1
                        T.evaluate(T.call_extern("int32", "usleep", 1000))

    built = tvm.tirx.build(main, tvm.target.Target(TARGET), PIPELINE)
    waited = tvm.runtime.tensor(np.zeros(1, np.int32))
    thread = tvm.runtime.tensor(np.zeros(8, np.int32))
    _run(2, lambda: built["main"](waited, thread))
    assert waited.numpy()[0] < 10_000, "the others came after it"
    first, *others = thread.numpy().tolist()
    assert set(others).isdisjoint({0, first}), others
    assert len(set(others)) == 1, others


def test_two_loops_and_one_that_is_repeated() -> None:
    @T.prim_func(s_tir=True)
    def main(a: T.Buffer((70,), "int32"), b: T.Buffer((70,), "int32")) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for _ in range(3):
            for i in T.parallel(70):
                a[i] = a[i] + 1
        for j in T.parallel(70):
            b[j] = a[69 - j]

    built = tvm.tirx.build(main, tvm.target.Target(TARGET), PIPELINE)
    a, b = (tvm.runtime.tensor(np.arange(70, dtype=np.int32)) for _ in range(2))
    _run(3, lambda: built["main"](a, b))
    assert (a.numpy() == np.arange(70) + 3).all()
    assert (b.numpy() == a.numpy()[::-1]).all()


def test_a_parallel_loop_within_another_is_refused() -> None:
    @T.prim_func(s_tir=True)
    def main(a: T.Buffer((4, 4), "int32")) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for i in T.parallel(4):
            for j in T.parallel(4):
                a[i, j] = 1

    with pytest.raises(ValueError, match="a parallel loop is in another"):
        tvm.tirx.build(main, tvm.target.Target(TARGET), PIPELINE)


def test_a_single_round_stays_as_it_is() -> None:
    passes, _, _ = tvm.tirx.get_tir_pipeline(PIPELINE)
    target = tvm.target.Target(TARGET)
    bind: Any = tvm.tirx.transform.BindTarget(target.with_host(target))
    lowered = passes(bind(tvm.IRModule({"main": _marking(5, "int32")})))
    assert "tvmdet_claim" in lowered.script(show_meta=False)
    lowered = passes(bind(tvm.IRModule({"main": _marking(1, "int32")})))
    assert "tvmdet_claim" not in lowered.script(show_meta=False)


def _local(elements: int) -> tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def main(a: T.Buffer((4, elements), "float32"), b: T.Buffer((4, elements), "float32")) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for i in T.parallel(4):
            with T.sblock("row"):
                v = T.axis.spatial(4, i)
                kept = T.sblock_alloc_buffer((elements,), scope="local")
                for j in range(elements):
                    kept[j] = a[v, j] * T.float32(2)
                for j in range(elements):
                    b[v, j] = kept[elements - 1 - j]

    return main


@pytest.mark.parametrize(("elements", "asks"), [(16, False), (100_000, True)])
def test_small_local_buffers_are_not_asked_of_a_pool(elements: int, asks: bool) -> None:
    passes, finalize, _ = tvm.tirx.get_tir_pipeline(PIPELINE)
    target = tvm.target.Target(TARGET)
    bind: Any = tvm.tirx.transform.BindTarget(target.with_host(target))
    text = finalize()(passes(bind(tvm.IRModule({"main": _local(elements)})))).script()
    assert ("TVMBackendAllocWorkspace" in text) == asks
    built = tvm.tirx.build(_local(elements), target, PIPELINE)
    data = np.random.default_rng(0).standard_normal((4, elements)).astype(np.float32)
    got = tvm.runtime.tensor(np.zeros_like(data))
    _run(2, lambda: built["main"](tvm.runtime.tensor(data), got))
    assert (got.numpy() == 2 * data[:, ::-1]).all()

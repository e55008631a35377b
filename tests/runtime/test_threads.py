from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from tvmdet.runtime.native import _tvm_ffi, configure_workers
from tvmdet.runtime.threads import NativeThread, native_thread


def test_runs_in_order_on_one_thread_of_its_own() -> None:
    thread = NativeThread(1, lambda _: None)
    futures = [thread.submit(lambda i=i: (i, threading.get_ident())) for i in range(20)]
    results = [future.result() for future in futures]
    assert [i for i, _ in results] == list(range(20))
    assert {ident for _, ident in results} == {results[0][1]}
    assert results[0][1] != threading.get_ident()


def test_hands_errors_back_and_goes_on() -> None:
    thread = NativeThread(1, lambda _: None)
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 // 0).result()
    assert thread.submit(lambda: 5).result() == 5


def test_reports_a_configuration_that_failed() -> None:
    def fail(workers: int) -> None:
        raise ValueError(f"no {workers} workers")

    thread = NativeThread(3, fail)
    with pytest.raises(ValueError, match="no 3 workers"):
        thread.wait_until_configured()


def test_threads_take_turns() -> None:
    threads = [NativeThread(workers, lambda _: None) for workers in (1, 2, 3)]
    running: list[int] = []
    overlaps: list[int] = []

    def work() -> None:
        running.append(1)
        time.sleep(0.002)
        overlaps.append(len(running))
        running.pop()

    for future in [thread.submit(work) for _ in range(5) for thread in threads]:
        future.result()
    assert overlaps == [1] * 15


def test_keeps_nothing_of_a_call_alive() -> None:
    thread = NativeThread(1, lambda _: None)

    class Thing:
        def __del__(self) -> None:
            gone.set()

    gone = threading.Event()

    def submit(thing: Any) -> None:
        thread.submit(lambda: (thing, None)[1]).result()

    submit(Thing())
    assert gone.wait(5)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_tvm_computes_with_as_many_threads_as_asked(workers: int) -> None:
    before = os.sched_getaffinity(0)
    thread = native_thread(workers, configure_workers)
    thread.wait_until_configured()
    assert native_thread(workers, configure_workers) is thread
    count = thread.submit(lambda: _tvm_ffi().get_global_func("runtime.NumThreads")()).result()
    assert count == workers
    # The native thread may run wherever the process may, and the caller's affinity is its own.
    assert thread.submit(lambda: os.sched_getaffinity(0)).result() == before
    assert os.sched_getaffinity(0) == before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_threads_of_its_own() -> None:
    parent = native_thread(1, configure_workers)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            thread = native_thread(1, configure_workers)
            if thread is not parent and thread.submit(lambda: 7).result(timeout=20) == 7:
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
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


def in_another_process(script: str) -> str:
    """Runs what must find a process whose main thread has no pool of workers yet."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_main_thread_computes_where_it_would_wait() -> None:
    said = in_another_process(
        """
        import os, threading
        from tvmdet.runtime.native import _tvm_ffi, configure_workers
        from tvmdet.runtime.threads import native_thread

        def seen():
            workers = _tvm_ffi().get_global_func("runtime.NumThreads")()
            return workers, threading.current_thread().name

        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        usable = os.sched_getaffinity(0)
        two, three = (native_thread(workers, configure_workers) for workers in (2, 3))
        future = two.run(seen)
        print(future.done(), *future.result())
        # The main thread has one pool, with one number of workers.
        print(*three.run(seen).result())
        print(*two.submit(seen).result())
        other = threading.Thread(target=lambda: print(*two.run(seen).result()))
        other.start(), other.join()
        print(os.sched_getaffinity(0) == usable)
        try:
            two.run(lambda: 1 // 0).result()
        except ZeroDivisionError:
            print(*two.run(seen).result())
        """
    )
    assert said.splitlines() == [
        "True 2 MainThread",
        "3 tvmdet-native",
        "2 tvmdet-native",
        "2 tvmdet-native",
        "True",
        "2 MainThread",
    ]


def test_a_main_thread_with_a_pool_of_its_own_hands_over() -> None:
    said = in_another_process(
        """
        import os, threading
        from tvmdet.runtime.native import _tvm_ffi, configure_workers
        from tvmdet.runtime.threads import native_thread

        configure_workers(1)
        thread = native_thread(2, configure_workers)
        print(thread.run(lambda: threading.current_thread().name).result())
        """
    )
    assert said == "tvmdet-native\n"


def test_calls_on_the_main_thread_wait_for_others() -> None:
    thread = NativeThread(1, lambda workers: workers)
    running, ended = threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        time.sleep(0.1)
        ended.set()

    thread.submit(work)
    assert running.wait(5)
    assert thread.run(ended.is_set).result()


def test_idle_workers_sleep(raw_path: Path) -> None:
    said = in_another_process(
        f"""
        import time
        import numpy as np
        from tvmdet import load

        with load({str(raw_path)!r}, threads=2) as network:
            inputs = {{name: np.ones((1, 3, 5), np.float32) for name in ("left", "right")}}
            network.run(inputs)
            before = time.process_time()
            time.sleep(0.5)
            print(time.process_time() - before)
        """
    )
    assert float(said) < 0.1

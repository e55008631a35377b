"""The threads that run compiled code.

TVM keeps one pool of workers per calling thread, binds the calling thread to CPUs when it
makes the pool, and lets the workers spin between calls. Called from a server's eight
threads it would keep eight pools. Compiled code therefore runs on a thread of our own, one
per number of workers, one call at a time per process: callers may be as many as they like,
and prepare their next images meanwhile. The hand-over there and back takes 0.1 to 0.3 ms,
which is much of a small network. So a process's main thread, which is most programs' only
one, gets a pool too, and computes by itself where it would only wait.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from tvmdet.errors import InputError

__all__ = ["NativeThread", "native_thread"]

Result = TypeVar("Result")

# Serialises the native threads among each other: two pools would fight for the same CPUs.
_one_call_at_a_time = threading.Lock()


Configure: TypeAlias = Callable[[int], int]
"""Gives the calling thread a pool of workers, and returns how many there are then."""

# Whose number of workers TVM's pool of the main thread has, once it has one. It stays in a forked
# child, whose main thread inherits a pool without workers and must not compute.
_computes_on_main: NativeThread | None = None
_main_has_workers = False


class NativeThread:
    """Runs functions one after the other on one daemon thread, or on the caller's.

    A forked child does not have the thread: functions are refused there.

    Attributes:
        workers: Threads that TVM computes with when called from here.
    """

    def __init__(self, workers: int, configure: Configure) -> None:
        """Starts the thread, which calls ``configure(workers)`` first, and returns at once."""
        self.workers = workers
        self._configure = configure
        self._process = os.getpid()
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        # A daemon, so that a program that ends need not close its detectors.
        threading.Thread(target=self._work, name="tvmdet-native", daemon=True).start()
        self._configured = self.submit(functools.partial(configure, workers))

    @property
    def is_here(self) -> bool:
        """Whether the thread runs in this process, and not in one that this was forked from."""
        return os.getpid() == self._process

    def wait_until_configured(self) -> None:
        """Waits for ``configure`` and raises what it raised."""
        self._configured.result()

    def submit(self, function: Callable[[], Result]) -> Future[Result]:
        """Queues a function and returns at once.

        Returns:
            A future with what the function returns or raises.

        Raises:
            InputError: The process was forked from the one that has the thread.
        """
        self._refuse_elsewhere()
        future: Future[Result] = Future()
        self._queue.put((future, function))
        return future

    def run(self, function: Callable[[], Result]) -> Future[Result]:
        """Runs a function whose result the caller waits for, on the main thread if called there.

        On other threads it does what :meth:`submit` does.

        Returns:
            A future with what the function returns or raises, done already on the main thread.

        Raises:
            InputError: As in :meth:`submit`.
        """
        self._refuse_elsewhere()
        if not self._computes_here():
            return self.submit(function)
        future: Future[Result] = Future()
        _run_into(future, function)
        return future

    def _refuse_elsewhere(self) -> None:
        if not self.is_here:
            raise InputError(
                f"the detector was loaded in another process ({self._process}, this one is "
                f"{os.getpid()}), whose threads a fork does not copy; load it after the fork"
            )

    def _computes_here(self) -> bool:
        global _computes_on_main, _main_has_workers
        if threading.current_thread() is not threading.main_thread():
            return False
        if _computes_on_main is None:
            _computes_on_main = self
            usable = os.sched_getaffinity(0)
            # A pool that the program itself made in TVM keeps its workers, however many.
            _main_has_workers = self._configure(self.workers) == self.workers
            if os.sched_getaffinity(0) != usable:
                os.sched_setaffinity(0, usable)
        return _computes_on_main is self and _main_has_workers

    def _work(self) -> None:
        while True:
            # Between calls nothing of the last one may be kept alive.
            _run_into(*self._queue.get())


def _run_into(future: Future[Result], function: Callable[[], Result]) -> None:
    try:
        with _one_call_at_a_time:
            result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


_threads: dict[int, NativeThread] = {}
_starting = threading.Lock()


def native_thread(workers: int, configure: Configure) -> NativeThread:
    """Returns the process's native thread with that many workers, started on first use.

    Args:
        workers: Threads that TVM computes with, 1 or more.
        configure: Called on the new thread to set TVM's pool up.
    """
    with _starting:
        thread = _threads.get(workers)
        if thread is None:
            thread = _threads[workers] = NativeThread(workers, configure)
        return thread


def _forget_threads() -> None:
    # A forked child has none of its parent's threads, and their locks in whatever state.
    global _one_call_at_a_time, _starting
    _threads.clear()
    _one_call_at_a_time = threading.Lock()
    _starting = threading.Lock()


os.register_at_fork(after_in_child=_forget_threads)

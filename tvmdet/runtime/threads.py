"""The thread that runs compiled code.

TVM keeps one pool of workers per calling thread, binds the calling thread to CPUs when it
makes the pool, and lets the workers spin between calls. Called from a server's eight
threads it would keep eight pools. All compiled code therefore runs on a thread of our own,
one per number of workers, one call at a time per process: the caller's affinity stays as it
is, and callers may be as many as they like. The hand-over costs some tens of microseconds,
and lets a caller prepare its next images meanwhile.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from tvmdet.errors import InputError

__all__ = ["NativeThread", "native_thread"]

Result = TypeVar("Result")

# Serialises the native threads among each other: two pools would fight for the same CPUs.
_one_call_at_a_time = threading.Lock()


class NativeThread:
    """Runs functions one after the other on one daemon thread.

    A forked child does not have the thread: :meth:`submit` refuses there.

    Attributes:
        workers: Threads that TVM computes with when called from here.
    """

    def __init__(self, workers: int, configure: Callable[[int], None]) -> None:
        """Starts the thread, which calls ``configure(workers)`` first, and returns at once."""
        self.workers = workers
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
        if not self.is_here:
            raise InputError(
                f"the detector was loaded in another process ({self._process}, this one is "
                f"{os.getpid()}), whose threads a fork does not copy; load it after the fork"
            )
        future: Future[Result] = Future()
        self._queue.put((future, function))
        return future

    def _work(self) -> None:
        while True:
            future, function = self._queue.get()
            try:
                with _one_call_at_a_time:
                    result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            # Between calls nothing of the last one may be kept alive.
            del future, function
            result = None


_threads: dict[int, NativeThread] = {}
_starting = threading.Lock()


def native_thread(workers: int, configure: Callable[[int], None]) -> NativeThread:
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

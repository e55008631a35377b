"""CUDA graphs: a GPU's kernels are recorded at the first call, and launched together afterwards.

The compiler puts kernels that only read memory of the code's own into a function apart
(``tvmdet/compiler/build.py``), and TVM's CUDA runtime records what that function launches. While it
does, CUDA refuses whatever else in the process allocates or copies on the GPU, and the recording
fails: tvmdet's own calls wait for each other here. What other libraries do meanwhile it cannot
know; hence ``TVMDET_CUDA_GRAPHS=0``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from tvmdet.errors import InputError

__all__ = ["Turns", "launch_one_by_one", "wanted"]

_VARIABLE: Final = "TVMDET_CUDA_GRAPHS"
_RECORD: Final = "vm.builtin.cuda_graph.run_or_capture"
_ALLOCATE: Final = "vm.builtin.cuda_graph.get_cached_alloc"


def wanted() -> bool:
    """Returns whether kernels are to be recorded: unless ``TVMDET_CUDA_GRAPHS`` is 0.

    Raises:
        InputError: The variable is neither 0 nor 1.
    """
    value = os.environ.get(_VARIABLE, "1")
    if value not in ("0", "1"):
        raise InputError(
            f"{_VARIABLE} is {value!r}; allowed: 1, record kernels and launch them together, or 0"
        )
    return value == "1"


def launch_one_by_one(ffi: ModuleType) -> None:
    """Has every kernel launched by itself, for code that is loaded from now on.

    Args:
        ffi: ``tvm_ffi``, with TVM's runtime loaded.
    """
    invoke = ffi.get_global_func("vm.builtin.invoke_closure")

    def run(machine: Any, function: Any, arguments: Any, *_which: Any) -> Any:
        return invoke(machine, function, *arguments)

    def allocate(machine: Any, function: Any, *_which: Any) -> Any:
        return invoke(machine, function)

    ffi.register_global_func(_RECORD, run, override=True)
    ffi.register_global_func(_ALLOCATE, allocate, override=True)


class Turns:
    """Lets any number of threads share something, or one have it alone."""

    def __init__(self) -> None:
        """Starts with nobody."""
        self._changed = threading.Condition()
        self._sharing = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Waits until nobody has it alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until nobody has it, and keeps others from beginning."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._sharing)
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

"""Functions that are loops of their own on a GPU: kernels with threads already, and others.

A kernel that was written for threads stays as it is. Of any other, each round of its parallel
loops becomes one block of one thread, and its scratch memory that thread's: right, and slow. It is
there so that no function of a detector has to run elsewhere; what takes time has kernels of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.targets import Target

__all__ = ["CudaPlainLoops"]


class CudaPlainLoops(Template):
    """The last template: one thread per parallel task; see the module's text."""

    name: ClassVar[str] = "cuda.plain_loops"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches everything."""
        return Workload(anchor="plain loops")

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns the only way."""
        return [Decision.of(self.name)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies it; see :class:`Template`."""
        if has_threads(func):
            return schedule_of(func)
        return schedule_of(_with_threads(func))


def has_threads(func: tirx.PrimFunc) -> bool:
    """Returns whether some loop of a function is bound to threads."""
    return "thread_extent" in str(func) or "launch_thread" in str(func)


def _with_threads(func: tirx.PrimFunc) -> tirx.PrimFunc:
    raise tvm.error.TVMError("a function without blocks has no threads")

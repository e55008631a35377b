"""Functions on a GPU that were written with threads of their own: calls of helpers in CUDA C++."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.targets import Target

__all__ = ["CudaPlainLoops"]


class CudaPlainLoops(Template):
    """The last template: changes nothing."""

    name: ClassVar[str] = "cuda.plain_loops"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches everything."""
        return Workload(anchor="plain loops")

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns the only way."""
        return [Decision.of(self.name)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Returns the function as it is; see :class:`Template`."""
        return schedule_of(func)

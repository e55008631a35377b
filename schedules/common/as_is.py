"""The last template: functions that are already loops of their own, such as the box suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.targets import Target

__all__ = ["AsIs"]


class AsIs(Template):
    """Changes nothing: the function was written with its own parallel loops, or calls out."""

    name: ClassVar[str] = "common.as_is"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches everything."""
        return Workload(anchor="as is")

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns the only way."""
        return [Decision.of(self.name)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Returns the function as it is."""
        return schedule_of(func)

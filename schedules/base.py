"""The contract between the schedule templates and everything that searches or applies them.

A template answers three questions about a fused TIR function:

1. does this match? (:meth:`Template.match`; no match is ``None``, and the next template is asked)
2. what are the knobs? (:meth:`Template.decisions`, the valid settings, best guess first)
3. apply these knobs (:meth:`Template.apply`)

Decisions are frozen values that print, hash and replay: the tuning store keeps them, not traces,
so that a record outlives a change of the template's internals and can be read by a person.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import Schedule, renew_defs
from tvmdet.targets import Target

__all__ = ["Decision", "Template", "Workload", "fingerprint", "schedule_of"]


@dataclass(frozen=True)
class Decision:
    """One setting of all knobs of one template.

    Attributes:
        template: :attr:`Template.name`.
        knobs: Pairs of knob name and value, in the template's order.
    """

    template: str
    knobs: tuple[tuple[str, int | str], ...] = ()

    @classmethod
    def of(cls, template: str, **knobs: int | str) -> Decision:
        """Returns a decision with the knobs given as keywords."""
        return cls(template, tuple(knobs.items()))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Decision:
        """Reads back what :meth:`to_dict` wrote."""
        return cls(str(data["template"]), tuple(data["knobs"].items()))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {"template": self.template, "knobs": dict(self.knobs)}

    def __getitem__(self, knob: str) -> Any:
        """Returns the value of one knob."""
        return dict(self.knobs)[knob]

    def __str__(self) -> str:
        """Returns ``template(knob=value, ...)``."""
        return f"{self.template}({', '.join(f'{k}={v}' for k, v in self.knobs)})"


@dataclass(frozen=True)
class Workload:
    """What a template read in a fused TIR function.

    Attributes:
        anchor: The operator and its shape as one line of text, without the fused epilogue:
            functions with the same anchor may borrow each other's decisions.
        flop: Floating-point operations of one call, 0 where that says nothing.
        facts: What :meth:`Template.decisions` and :meth:`Template.apply` need, by name.
    """

    anchor: str
    flop: int = 0
    facts: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, fact: str) -> Any:
        """Returns one fact."""
        return dict(self.facts)[fact]


class Template(abc.ABC):
    """How to schedule one pattern of operator.

    Attributes:
        name: ``family.pattern``, unique, part of every tuning record.
        rate: Operations a cycle at the very most, as a multiple of those of float32 vectors.
        told_by_other_pictures: Among how many of its first decisions the record of the same layer
            on a picture of another size chooses, where a workload has none of its own. With 1 the
            default stays: of most templates it is as good a guess, or a better one
            (docs/performance.md).
    """

    name: ClassVar[str]
    rate: ClassVar[int] = 1
    told_by_other_pictures: ClassVar[int] = 1

    @abc.abstractmethod
    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Returns the workload when this template schedules ``func``, else ``None``."""

    @abc.abstractmethod
    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns every valid decision, at least one; the first is the default."""

    @abc.abstractmethod
    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Returns a schedule of ``func`` with the decision applied.

        The PrimFunc of the result is ``schedule.mod["main"]``.

        Raises:
            tvm.s_tir.schedule.ScheduleError: The decision does not fit the function.
        """


def fingerprint(func: tirx.PrimFunc) -> str:
    """Returns 16 hex digits that two functions share when they are structurally equal.

    Buffer names, the symbol name and other attributes do not count.
    """
    bare = tirx.PrimFunc(func.params, func.body, func.ret_type)
    return f"{tvm_ffi.structural_hash(bare, map_free_vars=True) & (2**64 - 1):016x}"


def schedule_of(func: tirx.PrimFunc, *, checked: bool = True) -> Schedule:
    """Returns a fresh schedule whose module holds a copy of ``func`` as ``main``.

    With ``checked`` a step is refused where TVM cannot prove what it needs.

    The copy is deep: in TVM 0.27 a schedule of a shared body can rewrite it in place (the first
    ``split`` of a function that was not inlined into before).
    """
    module = tvm.IRModule({"main": renew_defs(func).with_attr("global_symbol", "main")})
    return Schedule(module, enable_check=checked)

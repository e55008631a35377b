"""What there is to tune: the distinct kernels of a lowered module."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import tvm
from tvm import relax, tirx

from tvmdet.passes.by_picture import pictures_of
from tvmdet.schedules import find
from tvmdet.schedules.base import Decision, Template, Workload, fingerprint
from tvmdet.targets import Target

__all__ = ["Task", "extract_tasks", "merge_tasks"]

_CALL_TIR = ("relax.call_tir", "relax.call_tir_inplace")


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One kernel to tune.

    Attributes:
        func: The fused function, not scheduled.
        fingerprint: Which functions are the same to the tuning store.
        anchor: The operator and its shape, for people and for borrowing.
        template: What schedules it.
        workload: What the template read in it.
        decisions: Every setting of the template, the default first.
        count: Calls per inference.
    """

    func: tirx.PrimFunc
    fingerprint: str
    anchor: str
    template: Template
    workload: Workload
    decisions: tuple[Decision, ...]
    count: int

    @property
    def tunable(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.decisions) > 1


def extract_tasks(mod: tvm.IRModule, target: Target) -> list[Task]:
    """Returns the distinct kernels that a lowered module calls, in the order of first call.

    Args:
        mod: Relax functions that call TIR functions through ``call_tir``.
        target: What they are compiled for.

    Returns:
        One task per fingerprint. Its count adds up every call of one inference, calls through
        other Relax functions included.
    """
    calls = _count_calls(mod)
    tasks: dict[str, Task] = {}
    for name, count in calls.items():
        func = mod[name]
        key = fingerprint(func)
        if key in tasks:
            tasks[key] = dataclasses.replace(tasks[key], count=tasks[key].count + count)
            continue
        template, workload = find(func, target)
        tasks[key] = Task(
            func=func,
            fingerprint=key,
            anchor=workload.anchor,
            template=template,
            workload=workload,
            decisions=tuple(template.decisions(workload, target)),
            count=count,
        )
    return list(tasks.values())


def merge_tasks(lists: Iterable[Iterable[Task]]) -> list[Task]:
    """Returns the tasks of several modules (batch buckets) as one list, counts added up."""
    merged: dict[str, Task] = {}
    for tasks in lists:
        for task in tasks:
            known = merged.get(task.fingerprint)
            count = task.count + (known.count if known else 0)
            merged[task.fingerprint] = dataclasses.replace(known or task, count=count)
    return list(merged.values())


def _count_calls(mod: tvm.IRModule) -> Counter[str]:
    """Counts the calls of every TIR function in one run of the module's entry functions."""
    direct: dict[str, Counter[str]] = {}
    nested: dict[str, Counter[str]] = {}
    for var, func in mod.functions_items():
        if isinstance(func, relax.Function):
            direct[var.name_hint], nested[var.name_hint] = _calls_in(mod, func)
    called = {name for counts in nested.values() for name in counts}
    total: Counter[str] = Counter()

    def visit(name: str, times: int, above: frozenset[str]) -> None:
        for callee, count in direct[name].items():
            total[callee] += times * count
        for callee, count in nested[name].items():
            if callee in direct and callee not in above:  # a recursive call is counted once
                visit(callee, times * count, above | {callee})

    for name in direct:
        if name not in called:
            visit(name, 1, frozenset({name}))
    return total


def _calls_in(mod: tvm.IRModule, func: relax.Function) -> tuple[Counter[str], Counter[str]]:
    direct: Counter[str] = Counter()
    nested: Counter[str] = Counter()

    def visit(node: object) -> None:
        if not isinstance(node, relax.Call):
            return
        if isinstance(node.op, tvm.ir.GlobalVar):
            nested[node.op.name_hint] += 1
        elif isinstance(node.op, tvm.ir.Op) and node.op.name in _CALL_TIR:
            direct[node.args[0].name_hint] += pictures_of(mod, node)

    relax.analysis.post_order_visit(func, visit)
    return direct, nested

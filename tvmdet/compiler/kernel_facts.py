"""What the manifest says of each kernel, for `tvmdet bench --per-layer`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir.analysis import estimate_tir_flops

from tvmdet.schedules import find
from tvmdet.schedules.base import Decision
from tvmdet.targets import Target

__all__ = ["kernel_facts"]


def kernel_facts(
    func: tirx.PrimFunc, target: Target, decision: Decision, source: str
) -> dict[str, Any]:
    """Returns plain JSON values that describe one kernel.

    Args:
        func: The fused function, not scheduled.
        target: What it is compiled for.
        decision: The schedule that it was given.
        source: Where that came from, as :class:`ScheduledKernels` counts it.

    Returns:
        ``template``, ``knobs``, ``source``, ``anchor`` (the operator and its shape) and
        ``flop``: of a convolution the multiplications and additions of its sums, of other
        kernels every operation of the function; None where the data decides how many they are.
    """
    _, workload = find(func, target)
    flop = workload.flop or _count_flop(func)
    return {**decision.to_dict(), "source": source, "anchor": workload.anchor, "flop": flop}


_PARTS = ("body", "block", "init", "then_case", "else_case")
"""Where a statement has other statements."""


def _count_flop(func: tirx.PrimFunc) -> int | None:
    if any(_is_open(statement) for statement in _statements(func.body)):
        return None
    return int(estimate_tir_flops(tvm.IRModule({"main": func})))


def _is_open(statement: Any) -> bool:
    """Whether the data decides how often a loop runs."""
    if isinstance(statement, tirx.For):
        return not isinstance(statement.extent, tirx.IntImm)
    return isinstance(statement, tirx.While)


def _statements(statement: Any) -> Iterator[Any]:
    yield statement
    inner = [getattr(statement, part, None) for part in _PARTS]
    for one in (*inner, *getattr(statement, "seq", ())):
        if one is not None:
            yield from _statements(one)

"""What the manifest says of each kernel, for `tvmdet bench --per-layer`."""

from __future__ import annotations

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
        kernels every operation of the function.
    """
    _, workload = find(func, target)
    flop = workload.flop or int(estimate_tir_flops(tvm.IRModule({"main": func})))
    return {**decision.to_dict(), "source": source, "anchor": workload.anchor, "flop": flop}

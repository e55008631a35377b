"""Weights that are fetched into L2 while those before them are multiplied.

A loop that goes along packed weights reads one vector after the other, from a block that is often a
page of memory: the prefetchers of a core stop at its end and begin anew behind it. Where weights
come from beyond L2, the first lines of each block are waited for. A template that knows where the
loop goes on says so (:data:`FETCH_AHEAD`), and each round asks for the vector that lies so far
ahead of the one it reads. Asking past the end of the weights does no harm: nothing is read.

This file is also run where the package around it is not loaded (:mod:`.cpu_pipeline`): it may
import nothing of it.
"""

from __future__ import annotations

from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad

__all__ = ["FETCH_AHEAD", "fetch_ahead"]

FETCH_AHEAD: Final = "tvmdet.fetch_ahead"
"""Annotation of a loop: how many vectors lie between one and that to ask for."""

_READ, _INTO_L2, _DATA = 0, 2, 1  # of LLVM's prefetch: not to write, locality, no instructions


def fetch_ahead(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Returns a lowered function of a CPU whose annotated loops ask for what they will read.

    Asked for is what is read as whole vectors of neighbours at places that move with the loop. The
    inputs that they are multiplied with are read one by one.
    """

    def asking(loop: Any) -> Any:
        ahead = loop.annotations.get(FETCH_AHEAD)
        if ahead is None:
            return loop
        asked = [_ask(load, int(ahead)) for load in _vectors(loop)]
        return tirx.For(
            loop.loop_var,
            loop.min,
            loop.extent,
            loop.kind,
            tirx.SeqStmt([*asked, loop.body]),
            loop.thread_binding,
        )

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, asking)))


def _vectors(loop: Any) -> list[Any]:
    """Returns the different loads of vectors in a loop."""
    found: dict[tuple[Any, str], Any] = {}

    def look(load: Any) -> None:
        index = load.indices[0]
        if len(load.indices) == 1 and isinstance(index, tirx.Ramp):
            found.setdefault((load.source.name, str(index)), load)

    tvm_ffi.structural_walk(loop.body, (TensorLoad, look))
    return [load for load in found.values() if _moves(load.indices[0].base, loop.loop_var)]


def _moves(place: Any, variable: Any) -> bool:
    found: list[Any] = []

    def look(one: Any) -> None:
        found.append(one.same_as(variable))

    tvm_ffi.structural_walk(place, (tirx.Var, look))
    return any(found)


def _ask(load: Any, ahead: int) -> Any:
    index = load.indices[0]
    place = tirx.BufferLoad(load.source, [index.base + ahead * int(index.lanes)])
    flags = [tirx.IntImm("int32", flag) for flag in (_READ, _INTO_L2, _DATA)]
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", tirx.address_of(place), *flags))

"""Loops that say so ask for the vectors that lie so far ahead; what is computed stays the same."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tvm
from scheduled_kernels import build
from tvm import te
from tvm.s_tir import Schedule
from tvmdet.targets import get_target

from tvmdet.passes.fetch_ahead import FETCH_AHEAD

V3 = get_target("x86-64-v3")
DEPTH, LANES, AHEAD = 40, 8, 24


def _product(ahead: int | None) -> Any:
    """Weights times an input, summed over the depth; the loop over it is annotated."""
    x = te.placeholder((DEPTH,), "float32", name="x")
    weights = te.placeholder((DEPTH, LANES), "float32", name="weights")
    k = te.reduce_axis((0, DEPTH), name="k")
    out = te.compute((LANES,), lambda v: te.sum(x[k] * weights[k, v], axis=k), name="out")
    schedule = Schedule(te.create_prim_func([x, weights, out]))
    block = schedule.get_sblock("out")
    vector, depth = schedule.get_loops(block)
    schedule.reorder(depth, vector)
    schedule.vectorize(vector)
    init = schedule.decompose_reduction(block, depth)
    schedule.vectorize(schedule.get_loops(init)[-1])
    if ahead is not None:
        schedule.annotate(depth, FETCH_AHEAD, ahead)
    return build([schedule.mod["main"]], V3)


def _places(library: Any, instruction: str) -> list[int]:
    """Distances from the start of the weights at which instructions of a kind read, in bytes."""
    found = re.findall(rf"\t{instruction}\w*\t(-?\d*)\(", library.inspect_source("asm"))
    return [int(one or 0) for one in found]


@pytest.mark.parametrize("ahead", [None, AHEAD])
def test_the_result_is_the_same(ahead: int | None) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=DEPTH).astype("float32")
    weights = rng.normal(size=(DEPTH, LANES)).astype("float32")
    tensors = [tvm.runtime.tensor(a) for a in (x, weights, np.zeros(LANES, "float32"))]
    _product(ahead)["k0"](*tensors)
    np.testing.assert_allclose(tensors[2].numpy(), x @ weights, rtol=1e-5, atol=1e-5)


def test_only_annotated_loops_ask_and_only_for_vectors() -> None:
    assert not _places(_product(None), "prefetch")
    library = _product(AHEAD)
    # The loop is unrolled: each turn asks for the vector that lies so many behind its own.
    read = _places(library, "vfmadd")
    assert len(read) >= 4
    assert _places(library, "prefetch") == [place + 4 * LANES * AHEAD for place in read]

"""Masks in the compiled graph: those of the chosen candidates, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from assertions import assert_close
from onnx_models import run_relax
from tvm import relax

from tvmdet.heads import MaskValues
from tvmdet.passes.attach_head import emit_masks


def _masks(
    values: np.ndarray, prototypes: np.ndarray | None, rows: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    given = [values, rows, counts, *([] if prototypes is None else [prototypes])]
    params = [
        relax.Var(f"x{at}", relax.TensorType(array.shape, str(array.dtype)))
        for at, array in enumerate(given)
    ]
    bb = relax.BlockBuilder()
    with bb.function("main", params=params):
        with bb.dataflow():
            shared = None if prototypes is None else params[3]
            masks = MaskValues(values=params[0], prototypes=shared)
            result = bb.emit_output(emit_masks(bb, masks, params[1], params[2]))
        bb.emit_func_output(result)
    (found,) = run_relax(bb.get(), *given)
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_masks_of_the_box_follow_the_candidates(batch: int) -> None:
    rng = np.random.default_rng(batch)
    values = rng.random((batch, 9, 5, 7), np.float32)
    rows = rng.integers(0, 9, (batch, 4)).astype(np.int32)
    want = np.stack([values[n][rows[n]] for n in range(batch)])
    counts = np.full(batch, 4, np.int32)
    assert_close(_masks(values, None, rows, counts), want, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size_hw", [(5, 8), (16, 24), (7, 9)])  # 8, 64 and 1 pixels a block
def test_masks_of_the_image_are_mixed_from_prototypes(batch: int, size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(batch)
    values = rng.normal(0, 3, (batch, 11, 6)).astype(np.float32)
    values[:, 0] = 1e4  # a sigmoid of what e to it is no float
    prototypes = rng.normal(0, 1, (batch, 6, *size_hw)).astype(np.float32)
    rows = rng.integers(0, 11, (batch, 5)).astype(np.int32)
    rows[:, 1] = 0
    chosen = np.stack([values[n][rows[n]] for n in range(batch)]).astype(np.float64)
    with np.errstate(over="ignore"):
        want = 1 / (1 + np.exp(-np.einsum("nkp,nphw->nkhw", chosen, prototypes)))
    for counts in ([5] * batch, [3, 0][:batch]):
        got = _masks(values, prototypes, rows, np.array(counts, np.int32))
        for image, count in enumerate(counts):
            wanted = want[image, :count].astype(np.float32)
            assert_close(got[image, :count], wanted, rtol=1e-5, atol=1e-6)

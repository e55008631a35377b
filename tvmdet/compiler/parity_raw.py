"""The parity check of a network without a head: its outputs against ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.compiler.reference import Reference
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.counted import counted
from tvmdet.differences import scale_of
from tvmdet.errors import ParityError
from tvmdet.rows import SPARED_SHARE, in_reference_order
from tvmdet.runtime.detector import Detector

__all__ = ["check_raw"]


def check_raw(
    detector: Detector,
    reference: Reference,
    inputs: dict[str, npt.NDArray[Any]],
    batch_sizes: Sequence[int],
    whole: Collection[str] = (),
    tolerance: Tolerance | None = None,
) -> dict[str, Any]:
    """Compares the outputs of a raw network with ONNX Runtime's, for each batch bucket.

    Args:
        detector: The compiled network.
        reference: ONNX Runtime at batch 1.
        inputs: By name, with at least as many rows as the greatest batch size.
        batch_sizes: The buckets.
        whole: Outputs without a batch axis, which come with one item at a time.
        tolerance: How far an output may be off.

    Raises:
        ParityError: An output is off; the message names it, the row and the value.
    """
    tolerance = tolerance or Tolerance()
    worst: dict[str, float] = {}
    breaches = []
    moved = 0
    for batch_size in batch_sizes:
        rows = {n: a if len(batch_sizes) == 1 else a[:batch_size] for n, a in inputs.items()}
        compiled = detector.run(rows)
        for row in range(batch_size):
            one = {
                n: a if list(batch_sizes) == [1] else a[row : row + 1] for n, a in inputs.items()
            }
            expected = reference.run(one)
            mine = {n: a if n in whole else a[row : row + 1] for n, a in compiled.items()}
            if reference.selects:
                # Detections of one image without a batch axis are rows of a batch of one.
                mine, expected = (
                    {n: a[None] if n in whole else a for n, a in side.items()}
                    for side in (mine, expected)
                )
                mine, count = in_reference_order(mine, expected, tolerance.raw)
                moved += count
            for name, want in expected.items():
                got = mine[name]
                gap = _relative_gap(got, want)
                if reference.selects:
                    gap = _without_spared(gap, tolerance.raw)
                drift = float(np.max(gap, initial=0.0))
                worst[name] = max(worst.get(name, 0.0), drift)
                if not drift <= tolerance.raw:
                    place = tuple(int(i) for i in np.unravel_index(np.argmax(gap), gap.shape))
                    breaches.append(
                        f"output {name}{list(place)} of batch {batch_size}, row {row}, is "
                        f"{got[place]!r}, ONNX Runtime has {want[place]!r}"
                    )
    if breaches:
        raise ParityError(
            f"{detector.target}: {breaches[0]} (allowed: {tolerance.raw:g} of the greatest "
            f"value; off: {counted(len(breaches), 'output')}); report it with the model"
        )
    return {
        "reference": reference.version,
        "batch_sizes": list(batch_sizes),
        "worst_relative": {name: float(f"{value:.3g}") for name, value in worst.items()},
        "rows_moved": moved,
        "tolerance": {"raw": tolerance.raw},
    }


def _without_spared(gap: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.float64]:
    """Returns the gaps without the few rows that may be other candidates altogether."""
    if gap.ndim < 2:
        return gap
    worst = gap.reshape(*gap.shape[:2], -1).max(axis=2, initial=0.0)
    off = worst > tolerance
    if 0 < off.sum() <= SPARED_SHARE * off.size:
        gap = gap.copy()
        gap[off] = 0.0
    return gap


def _relative_gap(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns differences as shares of the greatest finite value; exact for whole numbers."""
    if want.dtype.kind in "iub":
        return np.where(got == want, 0.0, np.inf)
    with np.errstate(invalid="ignore"):
        gap = np.abs(got.astype(np.float64) - want.astype(np.float64)) / scale_of(want)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    result: npt.NDArray[np.float64] = np.where(same, 0.0, np.nan_to_num(gap, nan=np.inf))
    return result

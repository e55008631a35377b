"""The parity check of a network without a head: its outputs against ONNX Runtime's.

A network that selects may pick other rows after another rounding, and what it computes from them is
other then. Where more than a few rows differ, ONNX Runtime is asked how many of its own do when the
inputs change by :attr:`Tolerance.nudge`: as large a share is not held against the compiled network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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

Arrays = dict[str, npt.NDArray[Any]]

_NUDGES = 4
_MOST_UNSETTLED = 0.1
"""Share of the rows beyond which a comparison says nothing, whatever the reference does itself."""


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
    moved, unsettled, rows_apart = 0, 0.0, ""
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
                mine, expected = (_with_rows(side, whole) for side in (mine, expected))
                mine, count = in_reference_order(mine, expected, tolerance.raw)
                moved += count
            gaps = {name: _relative_gap(mine[name], want) for name, want in expected.items()}
            if reference.selects:
                spared = SPARED_SHARE
                if (share := _most_off(gaps, tolerance)) > spared:
                    spared = max(spared, _unrest(reference, one, expected, whole, tolerance))
                    unsettled = max(unsettled, share if share <= spared else 0.0)
                    if share > spared:
                        rows_apart = (
                            f"; {share:.1%} of its rows are others, where a nudge of the inputs "
                            f"exchanges no more than {spared:.1%} of ONNX Runtime's own: an error, "
                            "or random weights whose scores tie"
                        )
                gaps = {n: _without_spared(gap, tolerance.raw, spared) for n, gap in gaps.items()}
            for name, gap in gaps.items():
                drift = float(np.max(gap, initial=0.0))
                worst[name] = max(worst.get(name, 0.0), drift)
                if not drift <= tolerance.raw:
                    place = tuple(int(i) for i in np.unravel_index(np.argmax(gap), gap.shape))
                    breaches.append(
                        f"output {name}{list(place)} of batch {batch_size}, row {row}, is "
                        f"{mine[name][place]!r}, ONNX Runtime has {expected[name][place]!r}"
                    )
    if breaches:
        raise ParityError(
            f"{detector.target}: {breaches[0]} (allowed: {tolerance.raw:g} of the greatest "
            f"value; off: {counted(len(breaches), 'output')}){rows_apart}; report it with the model"
        )
    return {
        "reference": reference.version,
        "batch_sizes": list(batch_sizes),
        "worst_relative": {name: float(f"{value:.3g}") for name, value in worst.items()},
        "rows_moved": moved,
        **({"rows_unsettled": float(f"{unsettled:.3g}")} if unsettled else {}),
        "tolerance": {"raw": tolerance.raw},
    }


def _with_rows(outputs: Arrays, whole: Collection[str]) -> Arrays:
    """Makes detections of one image without a batch axis the rows of a batch of one."""
    return {name: array[None] if name in whole else array for name, array in outputs.items()}


def _unrest(
    reference: Reference,
    inputs: Arrays,
    expected: Arrays,
    whole: Collection[str],
    tolerance: Tolerance,
) -> float:
    """Returns the share of rows in which the reference differs from itself on nudged inputs.

    Of several nudges the median, of several outputs the greatest, at most ``_MOST_UNSETTLED``.
    """
    shares = []
    for seed in range(_NUDGES):
        rng = np.random.default_rng(seed)
        nudged = {
            name: (array * (1 + rng.uniform(-1, 1, array.shape) * tolerance.nudge)).astype(
                array.dtype
            )
            if array.dtype.kind == "f"
            else array
            for name, array in inputs.items()
        }
        other, _ = in_reference_order(
            _with_rows(reference.run(nudged), whole), expected, tolerance.raw
        )
        gaps = {name: _relative_gap(other[name], want) for name, want in expected.items()}
        shares.append(_most_off(gaps, tolerance))
    return min(float(np.median(shares)), _MOST_UNSETTLED)


def _most_off(gaps: Mapping[str, npt.NDArray[np.float64]], tolerance: Tolerance) -> float:
    """Returns the share of rows that are off in the output where that is greatest."""
    return max((_share_off(gap, tolerance.raw) for gap in gaps.values()), default=0.0)


def _share_off(gap: npt.NDArray[np.float64], tolerance: float) -> float:
    """Returns in which share of the rows ``[batch, rows, ...]`` some value is off."""
    return float(np.mean(_rows_off(gap, tolerance))) if gap.ndim >= 2 and gap.size else 0.0


def _rows_off(gap: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.bool_]:
    off: npt.NDArray[np.bool_] = (
        gap.reshape(*gap.shape[:2], -1).max(axis=2, initial=0.0) > tolerance
    )
    return off


def _without_spared(
    gap: npt.NDArray[np.float64], tolerance: float, spared: float
) -> npt.NDArray[np.float64]:
    """Returns the gaps without the few rows that may be other candidates altogether."""
    if gap.ndim < 2 or not gap.size or not 0 < _share_off(gap, tolerance) <= spared:
        return gap
    gap = gap.copy()
    gap[_rows_off(gap, tolerance)] = 0.0
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

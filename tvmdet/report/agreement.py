"""Whether a contestant's outputs are those of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.differences import scale_of
from tvmdet.rows import SPARED_SHARE, in_reference_order

__all__ = ["SPARED_SHARE", "Agreement", "compare_outputs"]

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far outputs are from the reference.

    Attributes:
        worst: Greatest error relative to the greatest value of its output; infinite where
            outputs are missing, of other shapes, or not finite where the reference is.
        output: The output that it is in.
        tolerance: What was allowed.
        off_share: Share of the values of that output that are off by more than the tolerance.
        spared_share: Share that may be.
        reason: In words, when ``worst`` says too little.
    """

    worst: float
    output: str
    tolerance: float
    off_share: float = 0.0
    spared_share: float = 0.0
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the outputs are right."""
        return not self.reason and self.off_share <= self.spared_share

    def __str__(self) -> str:
        """Returns how bad it is, in words."""
        said = self.reason or (
            f"max error {self.worst:.2g} of the greatest value, {self.off_share:.2%} of values off "
            f"by more than the allowed {self.tolerance:g},"
        )
        return f"{said} in {self.output}"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        finite = bool(np.isfinite(self.worst))
        return {
            "ok": self.ok,
            "worst_relative": float(f"{self.worst:.3g}") if finite else None,
            "output": self.output,
            "tolerance": self.tolerance,
            "off_share": round(self.off_share, 6),
            "spared_share": self.spared_share,
            "reason": self.reason,
        }


def compare_outputs(
    got: Arrays, reference: Arrays, tolerance: float, spared_share: float = 0.0
) -> Agreement:
    """Compares every output with the reference, and returns what is worst.

    Args:
        got: A contestant's outputs by name.
        reference: The right ones.
        tolerance: Greatest error allowed, relative to the greatest value of the output.
        spared_share: Share of an output's values that may be off by more.
    """
    if spared_share:
        got, _ = in_reference_order(got, reference, tolerance)
    found = [
        _compare(name, got.get(name), right, tolerance, spared_share)
        for name, right in reference.items()
    ]
    return max(found, key=lambda one: (not one.ok, one.off_share, one.worst))


def _compare(
    name: str,
    given: npt.NDArray[Any] | None,
    right: npt.NDArray[Any],
    tolerance: float,
    spared_share: float,
) -> Agreement:
    same = Agreement(worst=0.0, output=name, tolerance=tolerance, spared_share=spared_share)
    infinite = replace(same, worst=float("inf"), off_share=1.0)
    if given is None:
        return replace(infinite, reason="no output")
    if given.shape != right.shape:
        reason = f"shape {list(given.shape)} instead of {list(right.shape)}"
        return replace(infinite, reason=reason)
    a, b = given.astype(np.float64), right.astype(np.float64)
    known = np.isfinite(b)
    if not np.array_equal(a[~known], b[~known], equal_nan=True):
        return replace(infinite, reason="other values where the reference is not finite")
    if not np.all(np.isfinite(a[known])):
        return replace(infinite, reason="values that are not finite")
    if not known.any():
        return same
    errors = np.abs(a[known] - b[known]) / scale_of(right)
    return replace(same, worst=float(errors.max()), off_share=float((errors > tolerance).mean()))

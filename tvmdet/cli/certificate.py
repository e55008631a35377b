"""The parity certificate of a compiled file, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmdet.cli import output
from tvmdet.counted import counted

__all__ = ["print_certificate"]


def print_certificate(parity: Mapping[str, Any] | None) -> None:
    """Prints what was compared with ONNX Runtime for each target, and how well it agreed."""
    if not parity:
        return
    output.table(
        ("parity", "against", "compared", "worst difference"),
        [(name, *_cells(checked)) for name, checked in parity.items()],
        gap=True,
    )


def _cells(checked: Mapping[str, Any]) -> tuple[str, str, str]:
    if "skipped" in checked:
        return "not checked", checked["skipped"], ""
    batches = ", ".join(str(size) for size in checked.get("batch_sizes", ()))
    tolerance = checked.get("tolerance", {})
    if "worst_relative" in checked:
        worst = ", ".join(f"{name} {value:g}" for name, value in checked["worst_relative"].items())
        compared = f"{counted(len(checked['worst_relative']), 'output')} at batch {batches}"
        allowed = f"of the greatest value {worst} (allowed {tolerance.get('raw', 0):g})"
        return checked.get("reference", ""), compared, allowed
    compared = (
        f"{counted(checked.get('boxes', 0), 'box', 'boxes')} in "
        f"{counted(len(checked.get('images', ())), 'image')} at batch {batches}"
    )
    if checked.get("rank_swaps"):
        compared += f", {counted(checked['rank_swaps'], 'other')} by rounding"
    worst = (
        f"IoU {checked.get('worst_iou')} (allowed {tolerance.get('iou')}), "
        f"score {checked.get('worst_score_drift')} (allowed {tolerance.get('score')})"
    )
    if "masks" in checked:
        compared = f"{counted(checked['masks'], 'mask')}, {compared}"
        worst += f", mask IoU {checked.get('worst_mask_iou')} (allowed {tolerance.get('mask_iou')})"
    if "keypoints" in checked:
        compared = f"{counted(checked['keypoints'], 'keypoint')}, {compared}"
        worst += (
            f", keypoints {checked.get('worst_keypoint_shift')} of a box's side "
            f"(allowed {tolerance.get('keypoint')})"
        )
    if "corners" in checked:
        compared = f"{counted(checked['corners'], 'corner')}, {compared}"
        worst += (
            f", corners {checked.get('worst_corner_shift')} of a box's side "
            f"(allowed {tolerance.get('corner')})"
        )
    if "emulated" in checked:
        compared += f", under {checked['emulated']}"
    return checked.get("reference", ""), compared, worst

"""The page that a run of the zoo becomes, and the page that names what it tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import write_table
from cases import CASES, Case

EXPORTING = write_table.ROOT / "docs" / "exporting.md"


def _result(case: Case, **more: Any) -> dict[str, Any]:
    known = {"title": case.title, "family": case.family, "spec": dict(case.spec)}
    return {**known, "exporter": case.exporter, "opset": case.opset, "reason": case.reason, **more}


def _agreement(iou: float, drift: float, flips: int = 0) -> dict[str, Any]:
    counts = {"boxes": 10, "alone": 0, "class_flips": flips}
    return {**counts, "worst_iou": iou, "worst_score_drift": drift}


def _case(network: str, opset: int) -> Case:
    (found,) = [
        case
        for case in CASES
        if (case.network, case.exporter, case.opset) == (network, "script", opset)
    ]
    return found


def _write(folder: Path, case: Case, **more: Any) -> None:
    (folder / f"{case.name}.json").write_text(json.dumps(_result(case, **more)))


def test_nothing_was_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no results in"):
        write_table.page(tmp_path)


def test_opsets_share_a_row_with_the_worst_of_them(tmp_path: Path) -> None:
    first, second = _case("yolov8", 11), _case("yolov8", 17)
    found = {"compiled_for": first.name, "agreement": _agreement(0.999, 1e-6)}
    _write(tmp_path, first, **found)
    found = {"compiled_for": first.name, "agreement": _agreement(0.995, 3e-7, 2)}
    _write(tmp_path, second, **found, one_thread_ratio=0.5)
    page = write_table.page(tmp_path)
    wanted = (
        "| TorchScript | 11, 17 | 1 | `yolov8` | by itself | 20 | 0.9950 | 1.0e-06 | 2 |  | 0.50 |"
    )
    assert f"| YOLOv8, YOLOv9, YOLO11 {wanted}" in page
    assert f"Of {len(CASES)} exports in the zoo 2 were run; 2 of these" in page


def test_keypoints_have_the_farthest_of_their_row(tmp_path: Path) -> None:
    for opset, away in ((11, 3e-4), (17, 2e-5)):
        case = _case("yolov8_pose", opset)
        agreement = {**_agreement(1.0, 1e-6), "points": 50, "worst_point_px": away}
        _write(tmp_path, case, compiled_for=case.name, agreement=agreement)
    assert "| 20 | 1.0000 | 1.0e-06 | 0 | 3.0e-04 |  |" in write_table.page(tmp_path)


def test_misses_have_a_reason_and_no_figures(tmp_path: Path) -> None:
    _write(tmp_path, _case("rf_detr", 17), miss="not exported: no | here")
    _write(tmp_path, _case("dfine", 17), miss="ModelError: no kernel")
    _write(tmp_path, _case("yolov5_maps", 17), asks=True)
    page = write_table.page(tmp_path)
    taken, unseen = page.split("## Not exported")
    assert "| D-FINE | TorchScript | 17 | ModelError: no kernel |" in taken
    assert "| RF-DETR | TorchScript | 17 | no \\| here |" in unseen
    assert "| YOLOv5, raw maps | TorchScript | 17 |  |  | asks |  |  |  |  |  |  |" in taken
    assert "1 of these are taken and equal, 1 could not be exported" in page


def test_trained_networks_show_their_difference(tmp_path: Path) -> None:
    _write(tmp_path, _case("yolov5_maps", 17), asks=True)
    report = {"boxes": {"ap": 0.5}, "masks": None, "reference": {"boxes": {"ap": 0.4995}}}
    (tmp_path / "eval-shapes.json").write_text(json.dumps(report))
    assert "| shapes | boxes | 0.5000 | 0.4995 | +0.0005 |" in write_table.page(tmp_path)


def test_the_guide_to_exporting_names_every_network() -> None:
    text = EXPORTING.read_text()
    networks = {case.network for case in CASES}
    torchvision = {name for name in networks if name.startswith("torchvision_")}
    assert [name for name in sorted(networks - torchvision) if f"`{name}`" not in text] == []


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)

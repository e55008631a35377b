"""Detectors that were trained on drawn shapes: what is compiled finds them as ONNX Runtime does.

They know something, so that average precision means something: a box that is off, a class taken
for another or a score that is wrong shows in it. ``models/README.md`` says how they were made.
What was measured lies beside the results of the zoo's other cases, for ``write_table.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import shapes
from environment import RESULTS

import tvmdet
from tvmdet.report import EvalOptions, EvalReport, evaluate

MODELS = Path(__file__).parent / "models"
PICTURES, SEED = 100, 2  # models/README.md has the figures of these
MOST_DIFFERENCE = 0.001
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One network.

    Attributes:
        name: Of the file.
        spec: What the file does not say.
        ap50: Least AP50 of its boxes.
        mask_ap50: That of its masks; None where it has none.
    """

    name: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    ap50: float
    mask_ap50: float | None = None


TRAINED = [
    pytest.param(Trained(name="shapes_one_stage", ap50=0.60), id="one stage"),
    pytest.param(
        Trained(
            name="shapes_two_stage",
            spec={
                "family": "detections",
                "labels": ("__background__", *shapes.LABELS),
                "input": {"color": "rgb", "resize": "stretch", **UNIT},
            },
            ap50=0.62,
            mask_ap50=0.58,
        ),
        id="two stages",
    ),
    pytest.param(
        Trained(name="shapes_queries", spec={"labels": shapes.LABELS}, ap50=0.50), id="queries"
    ),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations, beside pictures that no network was trained on."""
    return shapes.write_coco(tmp_path_factory.mktemp("shapes"), PICTURES, seed=SEED)


def measure(trained: Trained, annotations: Path, folder: Path) -> EvalReport:
    onnx, artifact = MODELS / f"{trained.name}.onnx", folder / "shapes.tvmdet"
    model = tvmdet.import_onnx(onnx, spec=dict(trained.spec))
    tvmdet.compile(model, output=artifact, threads=1)
    options = EvalOptions(annotations=annotations, images=annotations.parent, onnx=onnx, threads=1)
    return evaluate(artifact, options)


@pytest.mark.slow
@pytest.mark.parametrize("trained", TRAINED)
def test_precision_is_that_of_onnx_runtime(
    trained: Trained, pictures: Path, tmp_path: Path
) -> None:
    report = measure(trained, pictures, tmp_path)
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.to_dict(), indent=1, sort_keys=True)
    (RESULTS / f"eval-{trained.name}.json").write_text(text + "\n")
    assert not any("never found" in line for line in report.warnings), report.warnings
    assert report.differs == ()
    pairs = report.pairs()
    assert list(pairs) == (["boxes"] if trained.mask_ap50 is None else ["boxes", "masks"])
    for what, (mine, right) in pairs.items():
        assert right is not None
        for name, gap in mine.minus(right).items():
            assert gap is None or abs(gap) <= MOST_DIFFERENCE, f"{name} of {what} differs by {gap}"
        least = trained.ap50 if what == "boxes" else trained.mask_ap50
        assert right.values["AP50"] > least, "the network no longer finds shapes"
        assert all(one.ap50 is not None and one.objects > 50 for one in mine.classes)


def test_every_model_is_tested() -> None:
    tested = {param.values[0].name for param in TRAINED}
    assert {path.stem for path in MODELS.glob("*.onnx")} == tested

"""What an evaluation found, as values that become JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmdet.report.coco_metrics import Figures, Kind

__all__ = ["EvalReport", "ReferenceFigures"]


@dataclass(frozen=True, kw_only=True)
class _Measured:
    figures: Mapping[Kind, Figures]

    @property
    def boxes(self) -> Figures:
        """Figures of boxes."""
        return self.figures["boxes"]

    @property
    def masks(self) -> Figures | None:
        """Figures of masks; None where detector or annotations have none."""
        return self.figures.get("masks")

    @property
    def keypoints(self) -> Figures | None:
        """Figures of keypoints; None where detector or annotations have none."""
        return self.figures.get("keypoints")


@dataclass(frozen=True, kw_only=True)
class ReferenceFigures(_Measured):
    """What the same pictures give in ONNX Runtime.

    Attributes:
        runtime: With its version.
        figures: As of the compiled file.
    """

    runtime: str


@dataclass(frozen=True, kw_only=True)
class EvalReport(_Measured):
    """How well a compiled detector finds what is annotated.

    Attributes:
        artifact: Path of the compiled file.
        artifact_sha256: Its digest.
        model: What it was compiled from, as its manifest says.
        target: Whose code ran.
        annotations: Path of the annotations.
        images: How many pictures.
        objects: How many objects in them, crowds left out.
        score: Detections score more than this.
        iou: Of two boxes that overlap more, the better is kept.
        backend: The package that computed the figures.
        figures: Of ``boxes``, and of ``masks`` and ``keypoints`` where detector and annotations
            have them.
        sigmas: How far each keypoint may be off, as a share of the object's size; None without.
        reference: The same in ONNX Runtime; None when it was not asked for.
        max_drop: By how much AP may differ from the reference.
        warnings: What makes the figures other than they seem.
        command: What was typed.
    """

    artifact: str
    artifact_sha256: str
    model: Mapping[str, Any]
    target: str
    annotations: str
    images: int
    objects: int
    score: float
    iou: float
    backend: str
    sigmas: tuple[float, ...] | None = None
    reference: ReferenceFigures | None = None
    max_drop: float = 0.001
    warnings: tuple[str, ...] = ()
    command: Sequence[str] = ()

    def pairs(self) -> dict[Kind, tuple[Figures, Figures | None]]:
        """Returns the figures of each kind with those of the reference."""
        reference = {} if self.reference is None else self.reference.figures
        return {kind: (mine, reference.get(kind)) for kind, mine in self.figures.items()}

    @property
    def differs(self) -> tuple[str, ...]:
        """Of which kinds AP is too far from the reference's."""
        far = []
        for what, (mine, other) in self.pairs().items():
            if other is None:
                continue
            gap = mine.minus(other)["AP"]
            # One side without an AP at all would be no agreement.
            same_kind = (mine.values["AP"] is None) == (other.values["AP"] is None)
            if not same_kind or (gap is not None and abs(gap) > self.max_drop):
                far.append(what)
        return tuple(far)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "file": self.artifact,
            "file_sha256": self.artifact_sha256,
            "model": dict(self.model),
            "target": self.target,
            "annotations": self.annotations,
            "images": self.images,
            "objects": self.objects,
            "score_threshold": self.score,
            "iou_threshold": self.iou,
            "computed_by": self.backend,
            "boxes": self.boxes.to_dict(),
            "masks": None if self.masks is None else self.masks.to_dict(),
            "keypoints": None if self.keypoints is None else self.keypoints.to_dict(),
            "keypoint_sigmas": None if self.sigmas is None else list(self.sigmas),
            "reference": self._reference_dict(),
            "warnings": list(self.warnings),
            "command": list(self.command),
        }

    def _reference_dict(self) -> dict[str, Any] | None:
        if self.reference is None:
            return None
        masks, keypoints = self.reference.masks, self.reference.keypoints
        return {
            "runtime": self.reference.runtime,
            "boxes": self.reference.boxes.to_dict(),
            "masks": None if masks is None else masks.to_dict(),
            "keypoints": None if keypoints is None else keypoints.to_dict(),
            "difference": {
                what: {
                    name.lower().replace(" ", "_"): gap for name, gap in mine.minus(other).items()
                }
                for what, (mine, other) in self.pairs().items()
                if other is not None
            },
            "max_drop": self.max_drop,
            "differs": list(self.differs),
        }

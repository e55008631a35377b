"""ONNX Runtime as a detector: the plain reference of every build, one picture at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tvmdet.artifact import Artifact
from tvmdet.boxes import ImageTransform
from tvmdet.compiler.reference import Reference, suppress, to_image
from tvmdet.cpus import check_threads
from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.frontend import import_onnx
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import load_onnx
from tvmdet.masks import place_masks
from tvmdet.runtime.images import load_image
from tvmdet.runtime.loader import read_spec

__all__ = ["ReferenceDetector"]


class ReferenceDetector:
    """What a compiled detector was made from, run by ONNX Runtime.

    Attributes:
        version: Of ONNX Runtime.
    """

    def __init__(self, artifact: str | Path, onnx: Path, threads: int | None) -> None:
        """Opens the ONNX file of a compiled detector.

        Raises:
            InputError: The artifact was not compiled from this file.
            ModelError: The file cannot be used.
        """
        compiled = Artifact.open(artifact)
        got, promised = load_onnx(onnx, Limits()).sha256, compiled.manifest["model"].get("sha256")
        if got != promised:
            raise InputError(
                f"{artifact} was not compiled from {onnx}: its SHA-256 is {got}, and the artifact "
                f"names {promised}; give --onnx the file that it was compiled from"
            )
        spec = read_spec(compiled)
        model = import_onnx(onnx, spec=spec, size_hw=spec.input.size_hw)
        self._reference = Reference(replace(model, spec=spec), check_threads(threads))
        self.version = self._reference.version
        self.spec = spec

    def detect(self, path: Path, score: float, iou: float) -> Detections:
        """Finds the objects in one picture.

        Args:
            path: An image file.
            score: Detections score more than this.
            iou: Of two boxes that overlap more, the better is kept.

        Raises:
            InputError: The file is no image.
        """
        image = load_image(path)
        height, width = image.shape[:2]
        transform = ImageTransform.for_image((height, width), self.spec.input)
        every, _ = self._reference.candidates(image, transform)
        found = every.take(suppress(every, self.spec.postprocess, score, iou))
        placed, masks = to_image(found, transform), found.mask_values()
        return Detections(
            boxes_xyxy=placed.boxes_xyxy,
            scores=placed.scores,
            class_ids=placed.class_ids,
            labels=tuple(self.spec.labels[index] for index in placed.class_ids.tolist()),
            image_size_hw=(height, width),
            source=str(path),
            instance_masks=None
            if masks is None or self.spec.masks is None
            else place_masks(masks, found.boxes_xyxy, transform, self.spec.masks),
        )

"""ONNX Runtime as a detector: the plain reference of every build, one picture at a time."""

from __future__ import annotations

from pathlib import Path

from tvmdet.artifact import Artifact
from tvmdet.boxes import ImageTransform
from tvmdet.compiler.reference import Reference, suppress, to_image
from tvmdet.cpus import check_threads
from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.frontend.bind_inputs import bind_inputs
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.model import Model
from tvmdet.frontend.network import Network
from tvmdet.frontend.summary import summarise
from tvmdet.keypoints import place_keypoints
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
        spec = read_spec(compiled)
        loaded = load_onnx(onnx, Limits(), outputs=spec.outputs)
        got, promised = loaded.sha256, compiled.manifest["model"].get("sha256")
        if got != promised:
            raise InputError(
                f"{artifact} was not compiled from {onnx}: its SHA-256 is {got}, and the artifact "
                f"names {promised}; give --onnx the file that it was compiled from"
            )
        # What the network is has been settled when it was compiled: nothing is recognised again.
        bound = bind_inputs(loaded, spec.input.size_hw, spec.to_dict())
        network = Network(bound.loaded, spec.input.size_hw, Limits())
        summary = summarise(network.at(1))
        model = Model(
            name=loaded.name,
            sha256=loaded.sha256,
            spec=spec,
            recognition=(),
            input_names=tuple(summary.inputs),
            output_names=tuple(summary.outputs),
            network=network,
        )
        self._reference = Reference(model, check_threads(threads))
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
        points = found.keypoint_values()
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
            keypoints=None
            if points is None or self.spec.keypoints is None
            else place_keypoints(points, transform, self.spec.keypoints),
        )

"""The reference that every build is held to: ONNX Runtime and a plain numpy post-process.

Nothing of the compiled path is used here but the resize, which both sides share because it is
not compiled: the graph, the normalisation, the decoding and the suppression are other code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform, iou_matrix
from tvmdet.errors import ModelError
from tvmdet.heads import Decoded, MaskValues, get_head
from tvmdet.oriented import boxes_around, place_corners, probiou_matrix, undropped
from tvmdet.rows import selects
from tvmdet.runtime.resize import place_image
from tvmdet.spec import DetectorSpec, PostprocessSpec

__all__ = ["Candidates", "Reference", "suppress"]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Scored boxes before suppression, best first.

    Attributes:
        boxes_xyxy: float32 ``[n, 4]``, network pixels; of oriented boxes before they are turned.
        scores: float32 ``[n]``.
        class_ids: int32 ``[n]``.
        anchors: Which row of the network's decoded outputs each is; None where nobody asks.
        masks: Those of every row of the decoded outputs, batch 1; None for a detector without.
        keypoints: Likewise, float32 ``[1, A, P * D]``.
        angles: float32 ``[n]``, radians; None of boxes that are not oriented.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int32]
    anchors: npt.NDArray[np.intp] | None = None
    masks: MaskValues | None = None
    keypoints: npt.NDArray[np.float32] | None = None
    angles: npt.NDArray[np.float32] | None = None

    def __add__(self, other: Candidates) -> Candidates:
        """Returns the rows of both, these first; both are of one image."""
        anchors = None
        if self.anchors is not None and other.anchors is not None:
            anchors = np.concatenate([self.anchors, other.anchors])
        angles = None
        if self.angles is not None and other.angles is not None:
            angles = np.concatenate([self.angles, other.angles])
        return Candidates(
            boxes_xyxy=np.concatenate([self.boxes_xyxy, other.boxes_xyxy]),
            scores=np.concatenate([self.scores, other.scores]),
            class_ids=np.concatenate([self.class_ids, other.class_ids]),
            anchors=anchors,
            masks=self.masks,
            keypoints=self.keypoints,
            angles=angles,
        )

    def take(self, rows: Any) -> Candidates:
        """Returns some rows."""
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[rows],
            scores=self.scores[rows],
            class_ids=self.class_ids[rows],
            anchors=None if self.anchors is None else self.anchors[rows],
            angles=None if self.angles is None else self.angles[rows],
        )

    def overlaps(self, others: Candidates) -> npt.NDArray[np.float32]:
        """Returns how far boxes overlap others, ``[n, m]``: IoU, of oriented ones ProbIoU."""
        if self.angles is None or others.angles is None:
            return iou_matrix(self.boxes_xyxy, others.boxes_xyxy)
        return probiou_matrix(self.boxes_xyxy, self.angles, others.boxes_xyxy, others.angles)

    def corners(self, transform: ImageTransform) -> npt.NDArray[np.float32] | None:
        """Returns the corners of oriented boxes in the image, ``[n, 4, 2]``; None of others."""
        if self.angles is None:
            return None
        return place_corners(self.boxes_xyxy, self.angles, transform)

    def compact(self) -> Candidates:
        """Returns the same rows with the masks and points of no others, in arrays of their own."""
        if self.anchors is None or (self.masks is None and self.keypoints is None):
            return self
        # A row that may be of several classes is a candidate for each, and has one mask.
        used, anchors = np.unique(self.anchors, return_inverse=True)
        masks, points = self.masks, self.keypoints
        if masks is not None:
            masks = MaskValues(values=masks.values[:, used], prototypes=masks.prototypes)
        points = None if points is None else points[:, used]
        return replace(self, anchors=anchors, masks=masks, keypoints=points)

    def mask_values(self) -> npt.NDArray[np.float32] | None:
        """Returns the small masks of these rows, ``[n, h, w]``; None for a detector without."""
        if self.masks is None or self.anchors is None:
            return None
        values: npt.NDArray[np.float32] = self.masks.values[0][self.anchors]
        if self.masks.prototypes is None:
            return values
        mixed = np.tensordot(values, self.masks.prototypes[0], axes=1)
        # Past 80 the sigmoid is 0 or 1 in float32.
        values = 1 / (1 + np.exp(-np.clip(mixed, -80, 80)))
        return values

    def keypoint_values(self) -> npt.NDArray[np.float32] | None:
        """Returns the points of these rows, ``[n, P * D]``; None for a detector without."""
        if self.keypoints is None or self.anchors is None:
            return None
        values: npt.NDArray[np.float32] = self.keypoints[0][self.anchors]
        return values


# ONNX Runtime's names of what a picture may be fed as.
_PIXEL_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype("float32"),
    "tensor(float16)": np.dtype("float16"),
    "tensor(uint8)": np.dtype("uint8"),
}


class Reference:
    """ONNX Runtime around one model.

    Attributes:
        version: Of ONNX Runtime.
        selects: Whether the network picks or sorts candidates, so that rounding can move rows.
    """

    def __init__(self, model: Any, threads: int) -> None:
        """Opens a session for a :class:`tvmdet.frontend.Model`.

        Raises:
            ModelError: ONNX Runtime cannot run the model.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads would go on spinning beside those of the compiled detector.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.spec: DetectorSpec = model.spec
        self.version = f"onnxruntime {onnxruntime.__version__}"
        self._output_names = tuple(model.output_names)
        network = model.onnx_at(1)
        self.selects = selects(node.op_type for node in network.graph.node)
        try:
            self._session = onnxruntime.InferenceSession(
                network.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class but this
            raise ModelError(
                f"ONNX Runtime cannot run {model.name}, so that nothing can be compared with it: "
                f"{str(error).splitlines()[0]}"
            ) from error
        self.input_names = tuple(entry.name for entry in self._session.get_inputs())
        self._dtype = _PIXEL_TYPES.get(self._session.get_inputs()[0].type, np.dtype("float32"))

    def run(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Returns the network's outputs by name."""
        results = self._session.run(list(self._output_names), inputs)
        return dict(zip(self._output_names, results, strict=True))

    def candidates(
        self,
        image_bgr: npt.NDArray[np.uint8],
        transform: ImageTransform,
        *,
        alike: Callable[[Any], Any] | None = None,
        nudge: float = 0.0,
        seed: int = 0,
    ) -> tuple[Candidates, Candidates]:
        """Returns every scored box of an image, best first, and their other choices.

        Another choice is the same box with its second best class, or with any that scores about as
        much as the best; where a box is reported for one class only, rounding may prefer it. There
        are none where a box may have several classes.

        Args:
            image_bgr: uint8 ``[H, W, 3]``.
            transform: How it lies in the network's input.
            alike: Returns how much less than the best scores, ``[A]``, such a class may score;
                None for nothing.
            nudge: Greatest random change of each value of the network's input, as a share of it.
            seed: Of those changes.
        """
        spec = self.spec.input
        canvas = np.empty((*spec.size_hw, 3), np.uint8)
        place_image(image_bgr, transform, spec.border_bgr, canvas, spec.interpolation)
        pixels = canvas[..., ::-1] if spec.color == "rgb" else canvas
        mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
        network_input = ((pixels.astype(np.float32) - mean) / std).transpose(2, 0, 1)[None]
        if nudge:
            moves = np.random.default_rng(seed).uniform(-nudge, nudge, network_input.shape)
            network_input = network_input * (1 + moves.astype(np.float32))
        fed = np.ascontiguousarray(network_input.astype(self._dtype, copy=False))
        outputs = self.run({self.input_names[0]: fed})
        decoded = get_head(self.spec.family).decode_reference(outputs, self.spec)
        scores = decoded.scores
        if self.spec.masks is None:
            decoded = replace(decoded, masks=None)
        elif decoded.masks is None:
            raise ModelError(
                f"the spec has masks, and family {self.spec.family} finds none in the network's "
                "outputs; remove masks from the spec"
            )
        if self.spec.keypoints is None:
            decoded = replace(decoded, keypoints=None)
        elif decoded.keypoints is None:
            raise ModelError(
                f"the spec has keypoints, and family {self.spec.family} finds none in the "
                "network's outputs; remove keypoints from the spec"
            )
        if not self.spec.oriented:
            decoded = replace(decoded, angles=None)
        elif decoded.angles is None:
            raise ModelError(
                f"the spec says oriented, and family {self.spec.family} finds no angles in the "
                "network's outputs; remove oriented from the spec"
            )
        if self.spec.postprocess.multi_label:
            every = np.arange(scores[0].size)
            return _best_first(decoded, every), _best_first(decoded, every[:0])
        rows = np.arange(len(scores[0]))
        ranked = np.argsort(-scores[0], axis=1, kind="stable")
        best = ranked[:, 0]
        highest = scores[0][rows, best]
        others = scores[0] >= (highest - (0 if alike is None else alike(highest)))[:, None]
        others[rows, ranked[:, 1 if scores.shape[2] > 1 else 0]] = True
        others[rows, best] = False
        first = rows * scores.shape[2] + best
        return _best_first(decoded, first), _best_first(decoded, np.flatnonzero(others))


def suppress(
    candidates: Candidates, spec: PostprocessSpec, score: float, iou: float
) -> npt.NDArray[np.intp]:
    """Returns the rows that suppression keeps, best first.

    It is greedy: a box that is dropped drops no other. Of oriented boxes it does, as Ultralytics
    has it.

    Args:
        candidates: Best first.
        spec: Rows, candidates and class rules.
        score: Candidates must exceed it.
        iou: Of two boxes that overlap by more, the weaker goes.
    """
    rows = np.flatnonzero(candidates.scores > score)[: spec.pre_nms_top_k]
    entering = candidates.take(rows)
    overlaps = entering.overlaps(entering) > iou
    if not spec.class_agnostic:
        classes = candidates.class_ids[rows]
        overlaps &= classes[:, None] == classes[None, :]
    if candidates.angles is not None:
        return rows[undropped(overlaps)][: spec.max_detections]
    alive = np.ones(len(rows), bool)
    kept: list[int] = []
    for index in range(len(rows)):
        if alive[index]:
            kept.append(index)
            alive &= ~overlaps[index]
            if len(kept) == spec.max_detections:
                break
    return rows[kept]


def to_image(found: Candidates, transform: ImageTransform) -> Candidates:
    """Returns boxes mapped to the original image and clipped to it; around oriented ones."""
    corners = found.corners(transform)
    if corners is None:
        boxes = transform.to_image(found.boxes_xyxy)
    else:
        boxes = boxes_around(corners, transform.image_size_hw)
    return replace(found, boxes_xyxy=boxes, angles=None)


def _best_first(decoded: Decoded, flat: npt.NDArray[np.intp]) -> Candidates:
    """Returns entries of the score table ``[A, C]`` of batch 1, given by flat index."""
    classes = decoded.scores.shape[2]
    values = decoded.scores.reshape(-1)[flat]
    order = np.lexsort((flat, -values))
    flat = flat[order]
    return Candidates(
        boxes_xyxy=decoded.boxes[0][flat // classes],
        scores=values[order],
        class_ids=(flat % classes).astype(np.int32),
        anchors=flat // classes,
        masks=decoded.masks,
        keypoints=decoded.keypoints,
        angles=None if decoded.angles is None else decoded.angles[0][flat // classes],
    )

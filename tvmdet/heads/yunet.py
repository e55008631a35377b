"""YuNet, OpenCV's detector of faces: two scores, a box and five landmarks at every cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_outputs import FoundOutputs, hint_of
from tvmdet.heads.grids import doubling_strides
from tvmdet.heads.landmarks import landmarks_of, without_landmarks
from tvmdet.spec import PostprocessSpec

__all__ = ["YuNetHead"]

_STRIDES = (8, 16, 32)


def _opencv(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of OpenCV's FaceDetectorYN (modules/objdetect/src/face_detect.cpp, postProcess).

    Centres are shifts from a cell's corner in strides, sizes exponents in strides: differences to
    an anchor of one cell. The score is the root of class times objectness.
    """
    strides = given.get("strides") or doubling_strides(found.grids, size_hw)
    if strides is None:
        return "its strides double from level to level: give options.strides"
    return {
        "anchors": [[[stride, stride]] for stride in strides],
        "offset": 0.0,
        "score_rule": "sqrt",
        "strides": list(strides),
    }


class YuNetHead(DenseHead):
    """``cls``, ``obj`` ``[N, A, 1]``, ``bbox`` ``[N, A, 4]``, ``kps`` ``[N, A, 10]`` per stride.

    YuNet: A Tiny Millisecond-level Face Detector, Wu et al. 2023, as the OpenCV zoo's
    ``face_detection_yunet_2023mar.onnx`` has it; that of 2022 has other outputs. Claimed by these
    outputs, landmarks among them, which are shifts in strides from a cell's corner. Which of the
    two scores is the objectness does not matter to their product.
    """

    name = "yunet"
    title = "YuNet, faces: class, objectness and box at every cell (OpenCV zoo)"
    coding = "deltas"
    kinds = ("class", "box", "quality")
    styles: ClassVar[Mapping[str, Style]] = {
        "opencv": Style(
            about="OpenCV's FaceDetectorYN",
            # blobFromImage as it stands; padWithDivisor: a black border, right and below.
            input={
                "color": "bgr",
                "mean": (0.0, 0.0, 0.0),
                "std": (1.0, 1.0, 1.0),
                "resize": "letterbox",
                "pad_position": "top_left",
                "pad_value": 0,
            },
            # Defaults of FaceDetectorYN::create.
            postprocess=PostprocessSpec(
                score_threshold=0.9,
                iou_threshold=0.3,
                max_detections=300,
                pre_nms_top_k=5000,
            ),
            options=_opencv,
        )
    }
    pyramids = ((_STRIDES, 1),)

    def find(self, summary: GraphSummary, given: Mapping[str, Any]) -> FoundOutputs | str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.find`; landmarks are no boxes."""
        faces, landmarks = without_landmarks(summary)
        if not landmarks and given.get("family") != self.name:
            return "its boxes have not five landmarks each"
        return super().find(faces, _with_scores(faces, given))

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if found.columns != 1:
            return f"it has {found.columns} class columns; this family finds faces only"
        if doubling_strides(found.grids, size_hw) != _STRIDES or set(found.per_cell) != {1}:
            return "its levels have not strides 8, 16 and 32 with one prediction a cell"
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        if len(self.landmarks(summary, found)) == len(found.names["box"]) == len(_STRIDES):
            return "opencv", "by two scores and five landmarks at each cell of a level"
        return None

    def landmarks(self, summary: GraphSummary, found: FoundOutputs) -> tuple[str, ...]:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.landmarks`."""
        return landmarks_of(summary, found.names["box"])


def _with_scores(faces: GraphSummary, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the spec with both scores of each level in graph order, where nothing tells them."""
    levels: dict[int, list[str]] = {}
    for name, value in faces.outputs.items():
        if len(value.shape) == 3 and value.shape[2] == 1:
            levels.setdefault(int(value.shape[1] or 0), []).append(name)
    pairs = [levels[rows] for rows in sorted(levels, reverse=True)]
    options = {**given.get("options", {})}
    told = "class_outputs" in options or "quality_outputs" in options
    if told or any(len(pair) != 2 or hint_of(pair[0]) for pair in pairs):
        return given
    for key, at in (("class_outputs", 0), ("quality_outputs", 1)):
        options[key] = [pair[at] for pair in pairs]
    return {**given, "options": options}

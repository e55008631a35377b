"""PaddleDetection's file beside an export: infer_cfg.yml, called inference.yml for PaddleX.

Its form is that of ``_dump_infer_config`` in ``ppdet/engine/export_utils.py``; its transforms do
what ``deploy/python/preprocess.py`` does, which starts with an RGB picture of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvmdet.counted import counted
from tvmdet.frontend.config_values import is_three_numbers, tables_in
from tvmdet.heads.paddledetection import ARCH, METRIC, NMS_IOU

__all__ = ["is_paddle", "read_paddle"]

_PASSIVE = frozenset(("Permute",))
_INTERPOLATIONS = {0: "nearest", 2: "bicubic", 3: "area"}  # by cv2's numbers; 1 is bilinear
_LETTERBOX_GREY = 128  # 127.5, as OpenCV writes it into bytes
_SUPPRESSED_LATER = "PicoDet"  # the arch of exports whose NMS the deployment code does
Answer = tuple[dict[str, Any], tuple[int, int] | None, dict[str, str], list[str]]


def is_paddle(values: Any) -> bool:
    """Returns whether parsed YAML is such a file."""
    return isinstance(values, Mapping) and isinstance(values.get("Preprocess"), list)


def read_paddle(values: Mapping[str, Any]) -> Answer:
    """Reads what the file says.

    Args:
        values: The parsed file.

    Returns:
        The spec's keys, the size, hints for the heads and lines for people. A value of an unknown
        kind is left away and named in a line.
    """
    walk = _Transforms()
    walk.run(tables_in(values.get("Preprocess")))
    given: dict[str, Any] = {}
    reasons: list[str] = []
    if walk.input:
        given["input"] = walk.input
        reasons.append(f"input {', '.join(walk.input)}")
    labels = values.get("label_list")
    if isinstance(labels, list) and labels and all(isinstance(name, str) for name in labels):
        given["labels"] = labels
        reasons.append(f"{counted(len(labels), 'label')} (label_list)")
    hints: dict[str, str] = {}
    arch = values.get("arch")
    if isinstance(arch, str) and arch:
        hints[ARCH] = arch
        reasons.append(f"the architecture is PaddleDetection's {arch}")
    metric = values.get("metric")
    if isinstance(metric, str) and metric:
        hints[METRIC] = metric
    thresholds = _thresholds(values.get("NMS"))
    if thresholds and arch == _SUPPRESSED_LATER:
        given["postprocess"] = thresholds
        reasons.append(", ".join(f"{key} {value}" for key, value in thresholds.items()))
    elif "iou_threshold" in thresholds:
        hints[NMS_IOU] = str(thresholds["iou_threshold"])
    return given, walk.size_hw, hints, [*reasons, *walk.doubts]


class _Transforms:
    """Follows a picture through the transforms.

    Padding after the normalisation writes zeros, which are the mean colour of a picture; before
    it, grey levels. Without a NormalizeImage the network is fed what it is, 0 to 255: exporters
    leave it away where the network normalises (``fuse_normalize``), and YOLOX has none.
    """

    def __init__(self) -> None:
        self.input: dict[str, Any] = {}
        self.size_hw: tuple[int, int] | None = None
        self.doubts: list[str] = []
        self._steps = {
            "Resize": self._resize,
            "LetterBoxResize": self._letter,
            "NormalizeImage": self._normalize,
            "Pad": self._pad,
            "PadStride": self._pad_stride,
            "WarpAffine": self._warp,
        }

    def run(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        """Collects what the transforms mean for the input."""
        if transforms:
            self.input.update(color="rgb", mean=[0.0] * 3, std=[1.0] * 3)
        for transform in transforms:
            kind = transform.get("type")
            if not isinstance(kind, str):  # YAML's aliases may make a text without end of it
                self.doubts.append("a transform without a type is left away")
            elif kind in self._steps:
                self._steps[kind](transform)
            elif kind not in _PASSIVE:
                self.doubts.append(f"the transform {kind!r} has no counterpart and is left away")
        if self.input.get("resize") == "stretch":
            for key in ("pad_value", "pad_position", "rounding", "scale"):
                self.input.pop(key, None)

    def _resize(self, transform: Mapping[str, Any]) -> None:
        keep = transform.get("keep_ratio", True) is True
        self.input["resize"] = "letterbox" if keep else "stretch"
        if keep:
            # cv2.resize by fx and fy; boxes are divided by the same ratio.
            self.input.update(pad_position="top_left", pad_value=0)
            self.input.update(rounding="nearest", scale="exact")
        self._take_size(transform.get("target_size"), exact=not keep)
        number = transform.get("interp", 1)
        if isinstance(number, int) and number in _INTERPOLATIONS:
            self.input["interpolation"] = _INTERPOLATIONS[number]
        elif number != 1:
            shown = repr(number) if isinstance(number, int | str) else type(number).__name__
            self.doubts.append(
                f"Resize interpolates by cv2's number {shown}: pictures are resized bilinearly"
            )

    def _letter(self, transform: Mapping[str, Any]) -> None:
        self.input.update(resize="letterbox", pad_position="center", pad_value=_LETTERBOX_GREY)
        self.input["interpolation"] = "area"
        self._take_size(transform.get("target_size"), exact=True)

    def _warp(self, transform: Mapping[str, Any]) -> None:
        """Takes CenterNet's: the picture in the middle of black, its channels turned around."""
        self.input.update(resize="letterbox", pad_position="center", pad_value=0, color="bgr")
        self.input["interpolation"] = "warp"
        size = [transform.get("input_h", 512), transform.get("input_w", 512)]
        self._take_size(size, exact=True)
        if transform.get("keep_res") is True:
            self.doubts.append(
                "WarpAffine with keep_res leaves pictures as large as they are; here they are "
                "fitted into the network's input"
            )

    def _normalize(self, transform: Mapping[str, Any]) -> None:
        unit = 255.0 if transform.get("is_scale", True) else 1.0
        mean: Any = [0.0] * 3
        std: Any = [1.0] * 3
        if transform.get("norm_type", "mean_std") == "mean_std":
            mean, std = transform.get("mean"), transform.get("std")
            if not (is_three_numbers(mean) and is_three_numbers(std)) or 0 in std:
                self.doubts.append(
                    "NormalizeImage has not three means and deviations other than 0; what is fed "
                    "is left away"
                )
                for key in ("mean", "std"):
                    self.input.pop(key, None)
                return
        self.input["mean"] = [value * unit for value in mean]
        self.input["std"] = [value * unit for value in std]

    def _pad(self, transform: Mapping[str, Any]) -> None:
        levels = transform.get("fill_value", [114.0] * 3)
        if is_three_numbers(levels) and all(0 <= level <= 255 for level in levels):
            self.input["pad_value"] = [round(level) for level in levels]
        self._take_size(transform.get("size"), exact=True)

    def _pad_stride(self, transform: Mapping[str, Any]) -> None:
        stride = transform.get("stride", 0)
        if isinstance(stride, int) and stride > 0 and "mean" in self.input:
            means = [min(max(round(mean), 0), 255) for mean in self.input["mean"]]
            self.input["pad_value"] = means

    def _take_size(self, size: Any, *, exact: bool) -> None:
        """Takes a height and width; where they bound the shorter and longer side, a square's."""
        sides = [size, size] if isinstance(size, int) else size
        if isinstance(sides, list) and [type(side) for side in sides] == [int, int]:
            height, width = sides
            if min(sides) > 0 and (exact or height == width):
                self.size_hw = (height, width)


def _thresholds(nms: Any) -> dict[str, Any]:
    """Returns the thresholds of a suppression."""
    if not isinstance(nms, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key, name in (("score_threshold", "score_threshold"), ("iou_threshold", "nms_threshold")):
        share = nms.get(name)
        if isinstance(share, int | float) and type(share) is not bool and 0 <= share <= 1:
            found[key] = share
    for key, name in (("max_detections", "keep_top_k"), ("pre_nms_top_k", "nms_top_k")):
        count = nms.get(name)
        if type(count) is int and 0 < count <= 10_000:
            found[key] = count
    return found

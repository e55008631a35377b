"""MMDeploy's files beside an export: deploy.json, pipeline.json and detail.json.

Their form is that of ``mmdeploy/backend/sdk/export_info.py``: the pipeline's first task lists the
test pipeline's transforms, its last one the test configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvmdet.frontend.config_values import is_three_numbers, tables_in
from tvmdet.heads.dense_inputs import MMDETECTION, MMYOLO

__all__ = ["MODEL_HINT", "read_mmdeploy"]

MODEL_HINT = "mmdeploy.model"

# Transforms that do not change what a pixel is or where it lies.
_PASSIVE = frozenset(
    ("LoadImageFromFile", "DefaultFormatBundle", "Collect", "ImageToTensor", "Lift")
)
Answer = tuple[dict[str, Any], tuple[int, int] | None, dict[str, str], list[str]]


def read_mmdeploy(files: Mapping[str, Any]) -> Answer:
    """Reads what the files say.

    Args:
        files: Parsed files by plain name.

    Returns:
        The spec's keys, the size, hints for the heads and lines for people. A value of an unknown
        kind is left away and named in a line.
    """
    given: dict[str, Any] = {}
    hints: dict[str, str] = {}
    reasons: list[str] = []
    size_hw = None
    tasks = _tasks(files.get("pipeline.json", {}))
    for task in tasks:
        if task.get("module") == "Transform":
            walk = _Transforms()
            walk.run(tables_in(task.get("transforms")))
            size_hw = walk.size_hw
            if walk.input:
                given["input"] = walk.input
                reasons.append(f"input {', '.join(walk.input)}")
            reasons += walk.doubts
        if task.get("module") == "Net" and isinstance(task.get("name"), str):
            hints[MODEL_HINT] = task["name"]
            reasons.append(f"the model is MMDetection's {task['name']}")
    table = _thresholds(tasks, files.get("detail.json", {}), files.get("deploy.json", {}))
    if table:
        given["postprocess"] = table
        reasons.append(", ".join(f"{key} {value}" for key, value in table.items()))
    return given, size_hw, hints, reasons


def _tasks(pipeline: Any) -> list[Mapping[str, Any]]:
    inner = pipeline.get("pipeline") if isinstance(pipeline, Mapping) else None
    return tables_in(inner.get("tasks")) if isinstance(inner, Mapping) else []


class _Transforms:
    """Follows a picture through the transforms.

    Padding after the normalisation writes zeros, which are the mean colour of a picture; before
    it, levels of blue, green and red, the order in which pictures are loaded.
    """

    def __init__(self) -> None:
        self.input: dict[str, Any] = {}
        self.size_hw: tuple[int, int] | None = None
        self.doubts: list[str] = []
        self._normalised = False
        self._padded_bgr = False

    def run(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        """Collects what the transforms mean for the input."""
        for transform in transforms:
            kind = str(transform.get("type", "")).rpartition(".")[2]
            if kind in ("Resize", "FixScaleResize", "FixShapeResize", "YOLOv5KeepRatioResize"):
                self._resize(kind, transform)
            elif kind == "LetterResize":
                self._letter(transform)
            elif kind == "Normalize":
                self._normalize(transform)
            elif kind == "Pad":
                self._pad(transform)
            elif kind not in _PASSIVE:
                self.doubts.append(f"the transform {kind!r} has no counterpart and is left away")
        if self._padded_bgr and self.input.get("color", "rgb") == "rgb":
            self.input["pad_value"].reverse()
        if self.input.get("resize") == "stretch":
            for key in ("pad_value", "pad_position", "rounding", "scale"):
                self.input.pop(key, None)

    def _resize(self, kind: str, transform: Mapping[str, Any]) -> None:
        keep = kind == "YOLOv5KeepRatioResize" or transform.get("keep_ratio") is True
        self.input["resize"] = "letterbox" if keep else "stretch"
        if keep:
            self.input["pad_position"] = "top_left"
            framework = MMYOLO if kind == "YOLOv5KeepRatioResize" else MMDETECTION
            self.input.update(rounding=framework["rounding"], scale=framework["scale"])
        # MMYOLO's class shrinks so whatever its configuration says.
        usual = "area" if kind == "YOLOv5KeepRatioResize" else "bilinear"
        how = transform.get("interpolation", usual)
        if how in ("area", "bicubic", "nearest"):
            self.input["interpolation"] = how
        elif how != "bilinear":
            self.doubts.append(f"{kind} interpolates by {how!r}: pictures are resized bilinearly")
        sides = [transform.get("height"), transform.get("width")]
        size = transform.get("size", transform.get("scale"))
        self._take_size(sides if kind == "FixShapeResize" else size)

    def _letter(self, transform: Mapping[str, Any]) -> None:
        self.input.update(resize="letterbox", pad_position="center")
        if "rounding" not in self.input:  # else the picture has its size by now
            self.input.update(rounding="nearest", scale="sides")
        self._take_size(transform.get("scale", transform.get("size")))
        self._pad({"pad_val": transform.get("pad_val", 0)})

    def _normalize(self, transform: Mapping[str, Any]) -> None:
        mean, std = transform.get("mean"), transform.get("std")
        if not (is_three_numbers(mean) and is_three_numbers(std)) or 0 in (std or ()):
            self.doubts.append("Normalize has not three means and deviations; it is left away")
            return
        to_rgb = transform.get("to_rgb")
        if type(to_rgb) is not bool:
            shown = "does not say to_rgb" if to_rgb is None else f"has to_rgb {to_rgb!r}"
            self.doubts.append(f"Normalize {shown}: RGB, MMCV's default, is taken")
            to_rgb = True
        self.input["color"] = "rgb" if to_rgb else "bgr"
        self.input["mean"], self.input["std"] = list(mean or ()), list(std or ())
        self._normalised = True

    def _pad(self, transform: Mapping[str, Any]) -> None:
        if "logical_or_val" in transform:
            self.doubts.append("Pad by a logical or has no counterpart and is left away")
            return
        value = transform.get("pad_val", 0)
        value = value.get("img", 0) if isinstance(value, Mapping) else value
        if self._normalised and value in (0, [0, 0, 0]):
            levels = [min(max(round(mean), 0), 255) for mean in self.input["mean"]]
            self.input.setdefault("pad_value", levels)
        elif not self._normalised:
            levels = value if isinstance(value, list) else [value] * 3
            if is_three_numbers(levels) and all(0 <= level <= 255 for level in levels):
                self.input["pad_value"] = [round(level) for level in levels]
                self._padded_bgr = True

    def _take_size(self, size: Any) -> None:
        """Takes a square size; of another, MMDetection and the SDK disagree on the order."""
        if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
            side = size[0]
            if type(side) is int and side > 0:
                self.size_hw = (side, side)


def _thresholds(tasks: Sequence[Mapping[str, Any]], detail: Any, deploy: Any) -> dict[str, Any]:
    """Returns thresholds of the test configuration, for exports without suppression inside."""
    codebase = detail.get("codebase_config") if isinstance(detail, Mapping) else None
    codebase = codebase if isinstance(codebase, Mapping) else {}
    nets = [str(net.get("net")).split(".")[0] for net in tables_in(deploy.get("models"))]
    if codebase.get("model_type") == "end2end" or "end2end" in nets:
        # The network has applied them; the head of such outputs suppresses nothing.
        return {}
    found: dict[str, Any] = {}
    params = [task.get("params") for task in tasks if task.get("name") == "postprocess"]
    config = params[0] if params and isinstance(params[0], Mapping) else {}
    nms = config.get("nms") if isinstance(config.get("nms"), Mapping) else {}
    post = codebase.get("post_processing")
    post = post if isinstance(post, Mapping) else {}
    for key, values in (
        ("score_threshold", (config.get("score_thr"), post.get("score_threshold"))),
        ("iou_threshold", ((nms or {}).get("iou_threshold"), post.get("iou_threshold"))),
    ):
        shares = [v for v in values if isinstance(v, int | float) and 0 <= v <= 1]
        if shares:
            found[key] = shares[0]
    for key, count in (
        ("max_detections", config.get("max_per_img")),
        ("max_detections", post.get("keep_top_k")),
    ):
        if type(count) is int and 0 < count <= 10_000:
            found.setdefault(key, count)
    return found

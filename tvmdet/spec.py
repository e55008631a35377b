"""What a detector is: its input, its family and its post-processing.

One :class:`DetectorSpec` describes everything around the network. The compiler builds the
graph from it, the runtime prepares images from it, and it travels inside the artifact, so
that no second implementation of either can disagree.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tvmdet.errors import InputError

__all__ = [
    "MOST_KEYPOINTS",
    "DetectorSpec",
    "InputSpec",
    "KeypointSpec",
    "MaskSpec",
    "PostprocessSpec",
]

Color = Literal["rgb", "bgr"]
Resize = Literal["letterbox", "stretch"]
PadPosition = Literal["center", "top_left"]
Rounding = Literal["down", "half_up", "nearest"]
Scale = Literal["auto", "exact", "height", "ratio", "sides", "unrounded"]
Interpolation = Literal["area", "bicubic", "bilinear", "nearest", "warp"]
MaskFrame = Literal["box", "image"]
MaskInterpolation = Literal["logits", "values"]

_LONGEST_SHOWN = 120  # characters of a wrong value in a message
MOST_KEYPOINTS = 1000  # of one object


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """What one attribute may hold.

    Attributes:
        accepts: Whether a value is allowed; lists have become tuples before.
        allowed: How messages call the allowed values.
    """

    accepts: Callable[[Any], bool]
    allowed: str


def _one_of(*choices: str) -> _Rule:
    return _Rule(
        accepts=lambda got: isinstance(got, str) and got in choices, allowed=", ".join(choices)
    )


def _whole(low: int, high: int) -> _Rule:
    # bool is an int to Python, but true is no count.
    return _Rule(
        accepts=lambda got: type(got) is int and low <= got <= high,
        allowed=f"a whole number from {low} to {high}",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _is_plain(value: Any) -> bool:
    """Returns whether a value is JSON and comes back from JSON as it was."""
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_SIDE.accepts(s) for s in value)


def _is_three_numbers(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))


def _is_pair(value: Any) -> bool:
    whole = isinstance(value, list | tuple) and [type(one) for one in value] == [int, int]
    return whole and min(value) >= 0


_SIDE = _whole(1, 2**24)
_GREY = _whole(0, 255)
_SHARE = _Rule(accepts=lambda got: _is_number(got) and 0 <= got <= 1, allowed="a number, 0 to 1")
_FLAG = _Rule(accepts=lambda got: type(got) is bool, allowed="true or false")

_INPUT_RULES = {
    "size_hw": _Rule(
        accepts=_is_size, allowed="height and width in whole pixels, such as [640, 640]"
    ),
    "color": _one_of("rgb", "bgr"),
    "resize": _one_of("letterbox", "stretch"),
    "pad_value": _Rule(
        accepts=lambda got: (
            _GREY.accepts(got)
            or (isinstance(got, tuple) and len(got) == 3 and all(map(_GREY.accepts, got)))
        ),
        allowed="a whole number from 0 to 255, or three of them",
    ),
    "pad_position": _one_of("center", "top_left"),
    "rounding": _one_of("down", "half_up", "nearest"),
    "scale": _one_of("auto", "exact", "height", "ratio", "sides", "unrounded"),
    "interpolation": _one_of("area", "bicubic", "bilinear", "nearest", "warp"),
    "mean": _Rule(accepts=_is_three_numbers, allowed="three finite numbers, in pixel units"),
    "std": _Rule(
        accepts=lambda got: _is_three_numbers(got) and 0 not in got,
        allowed="three finite numbers, in pixel units, none of them zero",
    ),
    "constants": _Rule(
        accepts=lambda got: isinstance(got, Mapping) and _is_plain(got),
        allowed="a table of a number or a list for each further input of the network",
    ),
}
_POSTPROCESS_RULES = {
    "score_threshold": _SHARE,
    "iou_threshold": _SHARE,
    "max_detections": _whole(1, 10_000),
    "pre_nms_top_k": _whole(1, 1_000_000),
    "multi_label": _FLAG,
    "class_agnostic": _FLAG,
}


def _check(spec: Any, where: str, rules: Mapping[str, _Rule]) -> None:
    """Turns lists into tuples and refuses what the rules do not allow."""
    for name, rule in rules.items():
        if isinstance(getattr(spec, name), list):
            object.__setattr__(spec, name, tuple(getattr(spec, name)))
        if not rule.accepts(getattr(spec, name)):
            raise InputError(
                f"spec {where}{name} is {_show(getattr(spec, name))}; allowed: {rule.allowed}"
            )


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """How an image becomes the network's input.

    Attributes:
        size_hw: Height and width of the network's input, in pixels.
        color: Channel order that the network was trained on. The compiled module always
            takes OpenCV's BGR bytes and reorders them itself.
        resize: ``letterbox`` keeps the aspect ratio and pads, ``stretch`` does not.
        pad_value: Grey level of the letterbox border, 0 to 255, or one for each channel (in
            ``color`` order): the mean, where a framework pads with zeros after normalising.
        pad_position: Where the picture lies in the letterbox.
        rounding: How the sides of a picture in a letterbox become whole pixels: ``nearest`` (of
            two as near, the even one), ``half_up`` (the larger one), or ``down``.
        scale: By what boxes of a letterbox are divided: ``sides``, each axis by what whole pixels
            made of its side; ``ratio``, both by the ratio before that; ``exact``, likewise, and the
            picture is resized by that ratio, not to its whole sides; ``unrounded``, by the ratio,
            and a border in the middle is counted before it was whole pixels; ``height``, both by
            what whole pixels made of the height. ``auto`` is ``unrounded`` where a warp places
            the picture, else ``ratio`` for ``rounding = "down"``, and else ``sides``.
        interpolation: How OpenCV resizes: ``bilinear``, ``bicubic``, ``nearest``, or ``area``: the
            mean over what falls on a pixel where both sides shrink, else bilinear. Pillow's and
            torchvision's antialiased bilinear has no counterpart; ``area`` is nearest to it.
            ``warp`` is bilinear by ``warpAffine``, which scales from the middle of the first pixel,
            not from its corner, and has a letterbox where no side is rounded.
        mean: Per channel (in ``color`` order), in pixel units 0 to 255, subtracted.
        std: Per channel (in ``color`` order), in pixel units, divided by.
        constants: What further inputs of the export were given, by name: a number for every
            element, or a list. They are part of the compiled network.
    """

    size_hw: tuple[int, int]
    color: Color = "rgb"
    resize: Resize = "letterbox"
    pad_value: int | tuple[int, int, int] = 114
    pad_position: PadPosition = "center"
    rounding: Rounding = "nearest"
    scale: Scale = "auto"
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Rejects values that no network input can have."""
        _check(self, "input.", _INPUT_RULES)
        if self.interpolation == "warp" and self.scale not in ("auto", "unrounded"):
            raise InputError(
                f"spec input.scale is {_show(self.scale)} beside a warp, which rounds nothing; "
                "allowed: auto, unrounded"
            )

    @property
    def box_scale(self) -> Scale:
        """``scale``, or what ``auto`` stands for."""
        if self.scale != "auto":
            return self.scale
        if self.interpolation == "warp":
            return "unrounded"
        return "ratio" if self.rounding == "down" else "sides"

    @property
    def border_bgr(self) -> int | tuple[int, int, int]:
        """``pad_value`` as it is written into BGR pixels: a grey level, or three values."""
        if isinstance(self.pad_value, int) or self.color == "bgr":
            return self.pad_value
        red, green, blue = self.pad_value
        return blue, green, red


@dataclass(frozen=True, kw_only=True)
class PostprocessSpec:
    """How scored boxes become detections.

    Attributes:
        score_threshold: Default score that a detection must exceed; may be changed per call.
        iou_threshold: Default IoU above which the weaker of two boxes of one class is
            dropped; may be changed per call.
        max_detections: Rows that the compiled module returns per image.
        pre_nms_top_k: Candidates per image that enter non-maximum suppression, best first.
        multi_label: Whether one box may be reported for several classes (every class above
            the threshold), or only for its best class.
        class_agnostic: Whether boxes of different classes suppress each other.
    """

    score_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 300
    pre_nms_top_k: int = 1000
    multi_label: bool = False
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        """Rejects thresholds and counts out of range."""
        _check(self, "postprocess.", _POSTPROCESS_RULES)


@dataclass(frozen=True, kw_only=True)
class MaskSpec:
    """How the small masks that a network computes lie on the image.

    Attributes:
        frame: ``box``, each spans its box (Mask R-CNN), or ``image``, each spans the network's
            input (YOLACT, YOLOv8-seg, DETR).
        threshold: A pixel whose value exceeds it belongs to the object, 0 to 1.
        cut_to_box: Whether masks that span the input count inside their boxes only, as those of
            YOLACT and YOLOv8-seg; those of DETR count where they are.
        interpolate: What is interpolated between the pixels of a small mask: its ``values``, or,
            of masks that span the input, their ``logits``, as Ultralytics does.
    """

    frame: MaskFrame = "box"
    threshold: float = 0.5
    cut_to_box: bool = True
    interpolate: MaskInterpolation = "values"

    def __post_init__(self) -> None:
        """Rejects unknown frames and thresholds out of range."""
        _check(self, "masks.", _MASK_RULES)
        if self.interpolate == "logits" and self.frame == "box":
            raise InputError(
                'spec masks.interpolate is "logits" beside frame = "box", around which there is '
                'nothing, and no logit of it; allowed: "values"'
            )


@dataclass(frozen=True, kw_only=True)
class KeypointSpec:
    """What points a network finds of each object.

    Attributes:
        names: One for each point, in the network's order; no two alike.
        scored: Whether the network says of each point how sure it is, or how likely to be seen.
        skeleton: Pairs of points, by index, that a drawing joins by a line.
    """

    names: tuple[str, ...]
    scored: bool = False
    skeleton: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Rejects lists that are no names, or join points that are not there."""
        _check(self, "keypoints.", _KEYPOINT_RULES)
        skeleton = tuple(tuple(pair) for pair in self.skeleton)
        object.__setattr__(self, "skeleton", skeleton)
        last = len(self.names) - 1
        for pair in skeleton:
            if max(pair) > last:
                raise InputError(
                    f"spec keypoints.skeleton joins {list(pair)}; allowed: indices from 0 to {last}"
                )

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> KeypointSpec:
        """Builds one from the table of a spec.

        Raises:
            InputError: A key is unknown or missing, or a value is of the wrong kind.
        """
        made: KeypointSpec = _build(cls, "keypoints", table)
        return made

    @property
    def columns(self) -> int:
        """Numbers of one object: x and y of each point, and its score where there is one."""
        return len(self.names) * (3 if self.scored else 2)


_MASK_RULES = {
    "frame": _one_of("box", "image"),
    "threshold": _SHARE,
    "cut_to_box": _FLAG,
    "interpolate": _one_of("logits", "values"),
}
_KEYPOINT_RULES = {
    "names": _Rule(
        accepts=lambda got: (
            isinstance(got, tuple)
            and all(map(_is_name, got))
            and 1 <= len(set(got)) == len(got) <= MOST_KEYPOINTS
        ),
        allowed=f"a list of 1 to {MOST_KEYPOINTS} different names, each text and not empty",
    ),
    "scored": _FLAG,
    "skeleton": _Rule(
        accepts=lambda got: isinstance(got, tuple) and all(map(_is_pair, got)),
        allowed="a list of pairs of points, by index, such as [[0, 1], [1, 2]]",
    ),
}
_SPEC_RULES = {
    "family": _Rule(accepts=_is_name, allowed="the name of a detector family, or raw"),
    "labels": _Rule(
        accepts=lambda got: isinstance(got, tuple) and all(map(_is_name, got)),
        allowed="a list of class names, each text and not empty",
    ),
    "outputs": _Rule(
        accepts=lambda got: isinstance(got, tuple) and all(map(_is_name, got)),
        allowed="a list of names of outputs",
    ),
    "input": _Rule(accepts=lambda got: isinstance(got, InputSpec), allowed="an InputSpec"),
    "postprocess": _Rule(
        accepts=lambda got: isinstance(got, PostprocessSpec), allowed="a PostprocessSpec"
    ),
    "masks": _Rule(
        accepts=lambda got: got is None or isinstance(got, MaskSpec),
        allowed="a MaskSpec, or None for a detector without masks",
    ),
    "keypoints": _Rule(
        accepts=lambda got: got is None or isinstance(got, KeypointSpec),
        allowed="a KeypointSpec, or None for a detector without keypoints",
    ),
    "oriented": _FLAG,
    "options": _Rule(
        accepts=lambda got: isinstance(got, Mapping) and _is_plain(got),
        allowed="a table of plain values (text, finite numbers, true or false, lists, tables)",
    ),
}


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """Everything around the network of one detector.

    Attributes:
        family: Name of a module in ``tvmdet.heads`` (``yolov8``, ``picodet``), or ``raw``.
        labels: Class names, by class id. Empty for ``raw``.
        input: How an image becomes the network's input.
        postprocess: How scored boxes become detections.
        options: What the family needs beyond that (strides, ...), plain JSON values.
        masks: How its masks lie on the image; None for a detector without masks.
        keypoints: What points it finds of each object; None for a detector without.
        oriented: Whether its boxes are turned by an angle each. Such a detector has no masks and no
            keypoints, and ``postprocess.iou_threshold`` is one of ProbIoU
            (:mod:`tvmdet.oriented`).
        outputs: Those of the ONNX file that were kept; empty for all.
    """

    family: str
    labels: tuple[str, ...]
    input: InputSpec
    postprocess: PostprocessSpec = field(default_factory=PostprocessSpec)
    options: Mapping[str, Any] = field(default_factory=dict)
    masks: MaskSpec | None = None
    keypoints: KeypointSpec | None = None
    oriented: bool = False
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Rejects what is no name, label or table, and oriented boxes with more than boxes."""
        _check(self, "", _SPEC_RULES)
        if self.oriented and (self.masks is not None or self.keypoints is not None):
            also = "masks" if self.masks is not None else "keypoints"
            raise InputError(
                f"the spec says oriented and has {also}; allowed: one of them, since an oriented "
                "box has neither masks nor keypoints"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the spec as plain JSON values; :meth:`from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DetectorSpec:
        """Builds a spec from plain values, as read from JSON or TOML.

        Args:
            data: Keys as the attributes; ``input``, ``postprocess``, ``masks`` and ``keypoints``
                are tables. The last two may also be false, which TOML has and None not.

        Raises:
            InputError: A key is unknown or missing, or a value is of the wrong kind or out of
                range.
        """
        _refuse_other_than_table("the spec", data)
        _refuse_unknown("the spec", data, cls)
        for key in ("family", "labels", "input"):
            if key not in data:
                raise InputError(f"the spec has no {key!r}; needed: family, labels, input")
        return cls(
            family=data["family"],
            labels=data["labels"],
            input=_build(InputSpec, "input", data["input"]),
            postprocess=_build(PostprocessSpec, "postprocess", data.get("postprocess", {})),
            options=data.get("options", {}),
            masks=_build_some(MaskSpec, "masks", data),
            keypoints=_build_some(KeypointSpec, "keypoints", data),
            oriented=data.get("oriented", False),
            outputs=data.get("outputs", ()),
        )

    def override(self, data: Mapping[str, Any]) -> DetectorSpec:
        """Returns this spec with the given keys replaced; tables are merged key by key.

        Raises:
            InputError: A key is unknown, or a value is of the wrong kind or out of range.
        """
        _refuse_other_than_table("the spec", data)
        merged = self.to_dict()
        for key, value in data.items():
            if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
                merged[key] = {**merged[key], **value}
            else:
                merged[key] = value
        return DetectorSpec.from_dict(merged)


def _refuse_unknown(where: str, data: Mapping[str, Any], cls: type) -> None:
    allowed = [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in allowed:
            raise InputError(f"{where} has an unknown key {key!r}; allowed: {', '.join(allowed)}")


def _refuse_other_than_table(where: str, data: Any) -> None:
    if not isinstance(data, Mapping):
        raise InputError(f"{where} is {_show(data)}; give a table of values")


def _build_some(cls: type, table: str, data: Mapping[str, Any]) -> Any:
    """Builds from a table that may be missing, null or false."""
    given = data.get(table)
    return None if given is None or given is False else _build(cls, table, given)


def _build(cls: type, table: str, data: Any) -> Any:
    _refuse_other_than_table(f"spec {table}", data)
    _refuse_unknown(f"spec table {table}", data, cls)
    try:
        return cls(**data)
    except TypeError as error:  # size_hw is missing
        raise InputError(f"spec table {table}: {error}") from error

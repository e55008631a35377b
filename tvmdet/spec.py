"""What a detector is: its input, its family and its post-processing.

One :class:`DetectorSpec` describes everything around the network. The compiler builds the
graph from it, the runtime prepares images from it, and it travels inside the artifact, so
that no second implementation of either can disagree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tvmdet.errors import InputError

__all__ = ["DetectorSpec", "InputSpec", "PostprocessSpec"]

Color = Literal["rgb", "bgr"]
Resize = Literal["letterbox", "stretch"]
PadPosition = Literal["center", "top_left"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "color": ("rgb", "bgr"),
    "resize": ("letterbox", "stretch"),
    "pad_position": ("center", "top_left"),
}


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """How an image becomes the network's input.

    Attributes:
        size_hw: Height and width of the network's input, in pixels.
        color: Channel order that the network was trained on. The compiled module always
            takes OpenCV's BGR bytes and reorders them itself.
        resize: ``letterbox`` keeps the aspect ratio and pads, ``stretch`` does not.
        pad_value: Grey level of the letterbox border, 0 to 255.
        pad_position: Where the picture lies in the letterbox.
        mean: Per channel (in ``color`` order), in pixel units 0 to 255, subtracted.
        std: Per channel (in ``color`` order), in pixel units, divided by.
    """

    size_hw: tuple[int, int]
    color: Color = "rgb"
    resize: Resize = "letterbox"
    pad_value: int = 114
    pad_position: PadPosition = "center"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)

    def __post_init__(self) -> None:
        """Rejects values that no network input can have."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"spec input.{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                )
        if len(self.size_hw) != 2 or min(self.size_hw) < 1:
            raise InputError(
                f"spec input.size_hw is {self.size_hw!r}; "
                "give height and width in pixels, such as [640, 640]"
            )
        if not 0 <= self.pad_value <= 255:
            raise InputError(f"spec input.pad_value is {self.pad_value}; allowed: 0 to 255")
        if len(self.mean) != 3 or len(self.std) != 3 or min(abs(s) for s in self.std) == 0:
            raise InputError(
                f"spec input.mean is {self.mean!r} and std {self.std!r}; "
                "give three numbers each, in pixel units, std not zero"
            )


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
        for name in ("score_threshold", "iou_threshold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(
                    f"spec postprocess.{name} is {getattr(self, name)}; allowed: 0 to 1"
                )
        for name in ("max_detections", "pre_nms_top_k"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"spec postprocess.{name} is {getattr(self, name)}; allowed: 1 or more"
                )


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """Everything around the network of one detector.

    Attributes:
        family: Name of a module in ``tvmdet.heads`` (``yolov8``, ``picodet``), or ``raw``.
        labels: Class names, by class id. Empty for ``raw``.
        input: How an image becomes the network's input.
        postprocess: How scored boxes become detections.
        options: What the family needs beyond that (strides, ...), plain JSON values.
    """

    family: str
    labels: tuple[str, ...]
    input: InputSpec
    postprocess: PostprocessSpec = field(default_factory=PostprocessSpec)
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the spec as plain JSON values; :meth:`from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DetectorSpec:
        """Builds a spec from plain values, as read from JSON or TOML.

        Args:
            data: Keys as the attributes; ``input`` and ``postprocess`` are tables.

        Raises:
            InputError: A key is unknown or missing, or a value is out of range.
        """
        _refuse_unknown("the spec", data, cls)
        for key in ("family", "labels", "input"):
            if key not in data:
                raise InputError(f"the spec has no {key!r}; needed: family, labels, input")
        return cls(
            family=str(data["family"]),
            labels=tuple(str(label) for label in data["labels"]),
            input=_build(InputSpec, "input", data["input"]),
            postprocess=_build(PostprocessSpec, "postprocess", data.get("postprocess", {})),
            options=dict(data.get("options", {})),
        )

    def override(self, data: Mapping[str, Any]) -> DetectorSpec:
        """Returns this spec with the given keys replaced; tables are merged key by key.

        Raises:
            InputError: A key is unknown, or a value is out of range.
        """
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


def _build(cls: type, table: str, data: Mapping[str, Any]) -> Any:
    if not isinstance(data, Mapping):
        raise InputError(f"spec {table} is {data!r}; give a table of values")
    _refuse_unknown(f"spec table {table}", data, cls)
    values = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise InputError(f"spec table {table}: {error}") from error

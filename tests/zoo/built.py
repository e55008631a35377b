"""What a builder of the zoo returns: a network, how it is exported, and what its outputs mean.

Builders are modules with a table ``NETWORKS`` of functions by name. They run in the environment
with torch (:mod:`environment`), never in the tests' own process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from torch import nn

__all__ = ["SEED", "Arrays", "Built", "Candidates", "centered", "sigmoid", "softmax"]

SEED = 20
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What a framework's own code makes of a network's outputs, before suppression.

    Attributes:
        boxes: float32 ``[A, 4]``, x1 y1 x2 y2 in pixels of the network's input.
        scores: float32 ``[A, C]``. What an export has chosen already has one score a row.
        points: float32 ``[A, P, 2]``, keypoints in the same pixels; None without.
    """

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray | None = None

    @classmethod
    def chosen(
        cls, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, classes: int
    ) -> Candidates:
        """Returns detections ``[n, 4]``, ``[n]``, ``[n]`` as candidates of one class each."""
        table = np.zeros((len(scores), classes), np.float32)
        table[np.arange(len(scores)), labels.astype(np.int64)] = scores
        return cls(boxes=boxes.astype(np.float32), scores=table)


def _batch_of_one(pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": pixels[None]}


@dataclass(frozen=True, kw_only=True)
class Built:
    """A network ready to be exported.

    Attributes:
        model: In evaluation mode, weights drawn.
        arguments: What its forward takes, for the trace.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        size_hw: Of a picture, in pixels.
        classes: Number of classes, and of labels.
        decode: The framework's own post-processing up to suppression, of one picture: outputs by
            name to candidates.
        mean: Subtracted from a picture's channels, in pixel units.
        std: Divided by, likewise.
        color: Order of the channels that the network wants, rgb or bgr.
        feed: Inputs by name of one prepared picture float32 ``[3, h, w]``.
        dynamic: Open axes by tensor name, for the TorchScript exporter.
        metadata: What the framework writes into the file.
        finish: What is done to the file after the export, such as appending a plugin's node;
            what ONNX Runtime gives is taken before it.
    """

    model: nn.Module
    arguments: tuple[object, ...]
    outputs: tuple[str, ...]
    size_hw: tuple[int, int]
    classes: int
    decode: Callable[[Arrays], Candidates]
    inputs: tuple[str, ...] = ("images",)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    color: str = "rgb"
    feed: Callable[[np.ndarray], dict[str, np.ndarray]] = _batch_of_one
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None


def centered(boxes: np.ndarray) -> np.ndarray:
    """Returns boxes given as centre and size as corners."""
    half = boxes[..., 2:4] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Returns the logistic function in float64, as float32."""
    return (1 / (1 + np.exp(-values.astype(np.float64)))).astype(np.float32)


def softmax(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Returns the softmax in float64, as float32."""
    powers = np.exp(values.astype(np.float64) - values.max(axis=axis, keepdims=True))
    return (powers / powers.sum(axis=axis, keepdims=True)).astype(np.float32)

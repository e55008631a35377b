"""What a detector family is: how it is recognised, and how its raw outputs become boxes.

A family is one module in this folder with one subclass of :class:`Head`. It answers four
questions: is this network one of mine (:meth:`Head.examine`), does the spec fit it once the
user's part is in (:meth:`Head.validate`), what do its outputs mean inside the compiled graph
(:meth:`Head.decode`), and what do they mean in plain numpy
(:meth:`Head.decode_reference`, written independently, which the tests and the parity check
hold the first against).
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tvmdet.spec import DetectorSpec

if TYPE_CHECKING:
    import numpy as np
    from tvm import relax

__all__ = [
    "ANYTHING",
    "AtOdds",
    "BOX_MASKS",
    "ColumnRun",
    "Decoded",
    "GraphSummary",
    "Head",
    "MaskValues",
    "Near",
    "Normalisation",
    "Question",
    "Range",
    "ROW_COUNTS",
    "Recognition",
    "Stem",
    "TensorSummary",
]

# Metadata key that the frontend writes: the name of the output that holds masks in their boxes.
BOX_MASKS = "tvmdet.box_masks"

# Another of its keys: for each output with open dimensions, as JSON, which axis is counted by which
# of the outputs that the frontend adds.
ROW_COUNTS = "tvmdet.row_counts"


@dataclass(frozen=True, kw_only=True)
class TensorSummary:
    """Shape and element type of an input or output.

    Attributes:
        shape: Dimensions; None where the export leaves one open.
        dtype: numpy's name of the element type, such as ``float32``.
    """

    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        """Returns ``[1, 3, ?, ?] float32``."""
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"[{dims}] {self.dtype}"


@dataclass(frozen=True, kw_only=True)
class ColumnRun:
    """What neighbouring columns of an output hold, for any image.

    Attributes:
        start: First column.
        stop: One past the last.
        operators: Operator types that made them, back to the last one that mixes values (a Conv),
            which is included. None for constants.
        low: No value is smaller.
        high: No value is larger.
    """

    start: int
    stop: int
    operators: frozenset[str] = frozenset()
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_score(self) -> bool:
        """Whether the values are computed and lie from 0 to 1."""
        return bool(self.operators) and self.low >= 0.0 and self.high <= 1.0

    @property
    def is_raw(self) -> bool:
        """Whether the values come straight from a convolution."""
        return bool(self.operators) and self.operators <= {"Add", "Conv"} and self.low == -math.inf


@dataclass(frozen=True, kw_only=True)
class Range:
    """What values a column of an output can have, as far as the graph proves it.

    Attributes:
        low: Least value.
        high: Greatest value.
        whole: Whether every value is a whole number.
    """

    low: float
    high: float
    whole: bool = False

    @property
    def is_unit(self) -> bool:
        """Whether it is from 0 to 1, as scores are."""
        return self.low >= 0 and self.high <= 1


ANYTHING = Range(low=-math.inf, high=math.inf)


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What a network does to its picture: ``(x - mean) / std``, in the input's own units.

    Attributes:
        mean: One value per channel, in the input's order.
        std: Likewise.
        reverses: Whether it turns the order of the channels around.
        unknown: Operator types before the first convolution among which there is arithmetic that is
            none of this, in order; empty where all is known.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverses: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether it is known to subtract or divide, and that nothing else does."""
        return not self.unknown and (any(self.mean) or any(one != 1 for one in self.std))


@dataclass(frozen=True, kw_only=True)
class Stem:
    """The first convolution of a network.

    Attributes:
        kernel: Its width.
        stride: Likewise.
    """

    kernel: int
    stride: int

    @property
    def cuts_patches(self) -> bool:
        """Whether it cuts the picture into tokens of a vision transformer."""
        return self.kernel == self.stride >= 8


@dataclass(frozen=True, kw_only=True)
class GraphSummary:
    """What a head may look at to recognise its family.

    Attributes:
        inputs: Inputs by name, in graph order.
        outputs: Outputs by name, in graph order.
        operators: How often each operator type occurs.
        output_sources: Per output, the operator types that computed its values, seen through
            operators that only move values (Reshape, Transpose, Concat, Slice, Split, ...).
        columns: By output and axis, what its columns hold; axes that are too long are left away.
        output_maps: Per output, the shapes of the four-dimensional values joined into it, in
            order, seen through operators that move values or work on each alone; empty where
            one of them cannot be told.
        metadata: The metadata of the ONNX file.
        producer: Name and version of the exporter, or the empty string.
        opset: Of standard ONNX that the network is in; 0 where nobody says.
        constants: Further inputs of the export that were made constants, by name.
        channels_last: Whether the export takes a picture with its channels last.
        output_ranges: Per output what values it can have: one range, or one for each column of a
            small last dimension.
        output_traces: Per output how it was computed, last step first, as
            :func:`tvmdet.frontend.graph_evidence.trace_outputs` says it.
        gates: Number of activations that are ``x * sigmoid(x)``.
        stem: The first convolution.
        normalisation: What the network itself does to its picture, or None.
        sample: Runs the network on a picture of smooth shapes and returns its outputs by name; the
            same ones each time. None where nothing can be run.
    """

    inputs: Mapping[str, TensorSummary]
    outputs: Mapping[str, TensorSummary]
    operators: Mapping[str, int] = field(default_factory=dict)
    output_sources: Mapping[str, frozenset[str]] = field(default_factory=dict)
    columns: Mapping[tuple[str, int], tuple[ColumnRun, ...]] = field(default_factory=dict)
    output_maps: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    producer: str = ""
    opset: int = 0
    constants: Mapping[str, Any] = field(default_factory=dict)
    channels_last: bool = False
    output_ranges: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    output_traces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gates: int = 0
    stem: Stem | None = None
    normalisation: Normalisation | None = None
    sample: Callable[[], Mapping[str, np.ndarray]] | None = field(default=None, compare=False)

    @property
    def takes_bytes(self) -> bool:
        """Whether the picture, its only input, is of bytes."""
        return [value.dtype for value in self.inputs.values()] == ["uint8"]

    @property
    def exported_outputs(self) -> dict[str, TensorSummary]:
        """The outputs without the numbers of real rows that the frontend adds to some."""
        counted = json.loads(self.metadata.get(ROW_COUNTS, "{}")).values()
        added = {count for axes in counted for count in axes.values()}
        return {name: value for name, value in self.outputs.items() if name not in added}

    def column_runs(self, name: str, axis: int, start: int, stop: int) -> tuple[ColumnRun, ...]:
        """Returns what is known of the columns from ``start`` to ``stop``; empty if nothing."""
        runs = self.columns.get((name, axis % len(self.outputs[name].shape)), ())
        return tuple(
            replace(run, start=max(run.start, start), stop=min(run.stop, stop))
            for run in runs
            if run.start < stop and run.stop > start
        )


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """A family that claims a network.

    Attributes:
        family: Name of the head.
        reasons: What was recognised and why, one fact a line.
        spec: The detector as the head understands it, before the user's overrides.
    """

    family: str
    reasons: tuple[str, ...]
    spec: DetectorSpec


class AtOdds(str):
    """A refusal by a family that the network fits, but for what the user said of it."""


class Near(str):
    """A refusal by a family whose outputs these may be, but for what their values are."""


class Question(str):
    """A refusal by a family that the network fits, but that must be told something first.

    Attributes:
        spec_text: The spec that would settle it, as TOML that can be written to a file.
    """

    spec_text: str

    def __new__(cls, reason: str, *, spec_text: str) -> Question:
        """Makes one of the sentence that says what is open, and the spec that answers it."""
        question = super().__new__(cls, reason)
        question.spec_text = spec_text
        return question


@dataclass(frozen=True, kw_only=True)
class MaskValues:
    """The masks of every candidate, before one is chosen.

    Either one small picture per candidate, or coefficients of pictures that all of an image's
    candidates share (YOLACT, Bolya et al. 2019, section 3). ``spec.masks`` says how they lie on
    the image.

    Attributes:
        values: float32 ``[N, A, h, w]`` from 0 to 1, or coefficients ``[N, A, P]``.
        prototypes: float32 ``[N, P, h, w]`` where ``values`` are coefficients: the mask is the
            sigmoid of their sum.
    """

    values: Any
    prototypes: Any = None


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What a network's outputs mean: Relax expressions of a decoding, arrays of a reference.

    A family that has chosen its detections already (DETR, exports with suppression inside) has
    one row per detection, scores of zero in the classes that it is not, and an IoU threshold of 1
    in its spec, at which nothing is suppressed.

    Attributes:
        boxes: float32 ``[N, A, 4]`` as ``x1 y1 x2 y2`` in pixels of the network's input.
        scores: float32 ``[N, A, C]`` from 0 to 1, one column per label.
        masks: Of instance segmentation, else None.
        keypoints: float32 ``[N, A, P * D]``, x and y of each point in pixels of the network's
            input, and where ``spec.keypoints.scored`` says so a score from 0 to 1; else None.
        angles: float32 ``[N, A]``, by how many radians each box is turned about its centre, from
            the x axis to the y axis; None of boxes that are not oriented.
    """

    boxes: Any
    scores: Any
    masks: MaskValues | None = None
    keypoints: Any = None
    angles: Any = None


class Head(ABC):
    """One detector family.

    Attributes:
        name: The family's name in a spec; the module has the same name.
        title: What people call the family, with examples.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Decides whether a network belongs to this family.

        Args:
            summary: The network at batch size 1 and the static size below.
            size_hw: Height and width of the network's input, in pixels.
            given: What the user's spec says (``family``, ``labels``, ``options``, ...); it
                settles what the graph leaves open. Empty without a spec.

        Returns:
            The recognition, or one sentence that says why the network is not of this family; a
            :class:`Question` where it may be, and the user can say so.

        Raises:
            InputError: An option in ``given`` is malformed.
        """

    @abstractmethod
    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Checks a whole spec of this family, the user's part merged in, against the network.

        Args:
            spec: The detector.
            summary: The network at batch size 1.

        Raises:
            InputError: An option is unknown, missing, malformed or does not fit the network.
        """

    def recognise(self, summary: GraphSummary, size_hw: tuple[int, int]) -> Recognition | None:
        """Returns the recognition, or None when the network is not of this family."""
        found = self.examine(summary, size_hw, {})
        return found if isinstance(found, Recognition) else None

    @abstractmethod
    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Emits the decoding of the network's outputs, inside an open dataflow block.

        Only registered Relax operators are emitted.

        Args:
            bb: Builder with an open dataflow block.
            outputs: The network's outputs by ONNX name, with static shapes.
            spec: The detector.

        Returns:
            The candidates, as Relax expressions.

        Raises:
            ShapeError: An output is missing or has a shape that the spec does not explain.
        """

    @abstractmethod
    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Does in numpy what :meth:`decode` does, by other means.

        Args:
            outputs: The network's outputs by ONNX name.
            spec: The detector.

        Returns:
            The candidates, as arrays.

        Raises:
            ShapeError: An output is missing or has a shape that the spec does not explain.
        """

"""What the one-stage families share: examine by styles, decode by a layout.

A dense head predicts at every cell of a few grids. The families differ in what a box is coded as
and in how sure a score is made; frameworks differ in anchors, offsets, colours and thresholds for
one and the same family. A family is therefore a subclass of :class:`DenseHead` and a table of
:class:`Style`, one for each framework.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tvmdet.errors import InputError
from tvmdet.heads.anchors import anchor_shapes
from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.box_evidence import columns_of_pyramid
from tvmdet.heads.dense_decoding import emit_decoded, output_kinds, reference_decoded
from tvmdet.heads.dense_layout import (
    ACTIVATIONS,
    QUALITY_ACTIVATIONS,
    Coding,
    DenseLayout,
    grid_sizes,
    stride_pairs,
)
from tvmdet.heads.dense_outputs import FoundOutputs, describe_found, find_outputs
from tvmdet.heads.grids import covering_grids, doubling_strides
from tvmdet.heads.input_defaults import fed_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.landmarks import keypoints_line, landmark_spec
from tvmdet.heads.levels import form_of
from tvmdet.heads.options import choice, names_of
from tvmdet.heads.score_evidence import activation_question, find_activation
from tvmdet.spec import DetectorSpec, InputSpec, KeypointSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["DenseHead", "Options", "Style"]

Float64 = npt.NDArray[np.float64]
Options = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one framework builds a family.

    Attributes:
        about: The framework and the model, for people.
        input: What differs from :class:`~tvmdet.spec.InputSpec`'s defaults.
        postprocess: The framework's own thresholds and counts.
        options: Returns the options for outputs that were found, a size and the user's options;
            or why the outputs are not of this style.
    """

    about: str
    input: Mapping[str, Any]
    postprocess: PostprocessSpec
    options: Callable[[FoundOutputs, tuple[int, int], Mapping[str, Any]], Options | str]


class DenseHead(Head):
    """A one-stage family.

    Attributes:
        coding: What a box is coded as.
        kinds: Kinds of output that the family has.
        styles: By name, the most usual first.
        pyramids: Strides and boxes at a cell, one number or one for each level, tried where
            joined outputs do not tell their grids.
        activation: What makes scores of raw class outputs.
        usual_channels: Numbers of a box's distribution that tell it from as many classes.
    """

    coding: ClassVar[Coding]
    kinds: ClassVar[tuple[str, ...]] = ("class", "box")
    styles: ClassVar[Mapping[str, Style]]
    pyramids: ClassVar[tuple[tuple[tuple[float, ...], int | tuple[int, ...]], ...]] = ()
    activation: ClassVar[str] = "sigmoid"
    usual_channels: ClassVar[int] = 0

    @abstractmethod
    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Returns why outputs of the right kinds are not this family's, or ''."""

    @abstractmethod
    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Returns the style that the network itself proves and by what; None where it does not."""

    def find(self, summary: GraphSummary, given: Mapping[str, Any]) -> FoundOutputs | str:
        """Returns the outputs by kind, or why they are not this family's.

        Raises:
            InputError: The spec names outputs that are not there.
        """
        box_channels = 0 if self.coding == "distribution" else 4
        return find_outputs(summary, given, self.kinds, box_channels, self.usual_channels)

    def landmarks(self, summary: GraphSummary, found: FoundOutputs) -> tuple[str, ...]:
        """Returns the outputs of points beside each box, in the order of those; often none."""
        return ()

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options = given.get("options", {})
        if options.get("strides") is not None:
            stride_pairs(options["strides"])  # refuses malformed ones before they are counted on
        found = self.find(summary, given)
        if isinstance(found, str):
            return found
        found = self._with_grids(found, size_hw, options)
        if isinstance(found, str):
            return found
        mine = given.get("family") == self.name
        misfit = self.misfit(found, size_hw)
        if misfit and not mine:
            return misfit
        boxes = found.names["box"]
        if not mine and len(boxes) == 1 and columns_of_pyramid(summary, boxes[0], size_hw):
            return f"the values of {boxes[0]} move along with their cells: boxes decoded already"
        proven = self.proven_style(summary, found, size_hw)
        wanted = choice(options, "style", (*self.styles, _CUSTOM))
        if wanted is not None:
            proven = (wanted, "as the spec says")
        if proven is None:
            proven = self._hinted(summary, found, size_hw)
        if proven is None:
            return self._question(found, size_hw)
        style = self._style(proven[0])
        more = style.options(found, size_hw, options)
        if isinstance(more, str):
            return f"{describe_found(found)} are not those of {style.about}: {more}"
        return self._recognition(summary, size_hw, given, found, proven, more)

    def _hinted(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Returns MMDetection's style where MMDeploy's files say that the model is this family."""
        model = summary.metadata.get("mmdeploy.model", "")
        if _MMDETECTION_MODELS.get(model) != self.name:
            return None
        for name, style in self.styles.items():
            fits = not isinstance(style.options(found, size_hw, {}), str)
            if name.startswith("mmdetection") and fits:
                return name, f"as MMDeploy's pipeline.json says ({model})"
        return None

    def _style(self, name: str) -> Style:
        return self.styles.get(name) or _CUSTOM_STYLE

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        layout = DenseLayout.of(spec, self.coding)
        if bool(layout.quality_outputs) != ("quality" in self.kinds):
            raise InputError(
                f"the spec's options.quality_outputs is {list(layout.quality_outputs)}; family "
                f"{self.name} has {'one for each level' if 'quality' in self.kinds else 'none'}"
            )
        for names, channels in output_kinds(layout):
            for name, grid, rows in layout.parts(names):
                if name not in summary.outputs:
                    raise InputError(
                        f"the spec's options name an output {name!r}; the network's outputs: "
                        f"{', '.join(summary.outputs)}"
                    )
                shape = tuple(dim or 0 for dim in summary.outputs[name].shape)
                if not form_of(shape, grid, rows, channels):
                    raise InputError(
                        f"{name} is {summary.outputs[name]}; the spec needs {rows} boxes of "
                        f"{channels} numbers in it: correct the spec's labels, input.size_hw, "
                        "options.strides, options.grids or options.anchors"
                    )

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        return emit_decoded(bb, outputs, DenseLayout.of(spec, self.coding), self.coding)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        return reference_decoded(outputs, DenseLayout.of(spec, self.coding), self.coding)

    def _with_grids(
        self, found: FoundOutputs, size_hw: tuple[int, int], options: Mapping[str, Any]
    ) -> FoundOutputs | str:
        """Returns the outputs with grids, from the spec's strides or the family's usual ones."""
        if found.grids and options.get("grids") is None:
            return found
        if options.get("grids") is not None:
            return _regrid(found, grid_sizes(options["grids"]), size_hw, [])
        shapes = options.get("anchors")
        counts = [len(level) for level in anchor_shapes(shapes)] if shapes is not None else []
        if options.get("strides") is not None:
            grids = covering_grids(size_hw, stride_pairs(options["strides"]))
            return _regrid(found, grids, size_hw, counts)
        for strides, at_cell in self.pyramids:
            grids = covering_grids(size_hw, [(stride, stride) for stride in strides])
            counts = [at_cell] * len(grids) if isinstance(at_cell, int) else list(at_cell)
            fitting = _regrid(found, grids, size_hw, counts)
            if isinstance(fitting, FoundOutputs):
                return fitting
        return (
            f"{sum(found.rows)} boxes are of no pyramid that this family usually has at "
            f"{size_hw[0]}x{size_hw[1]}: give options.strides"
        )

    def _question(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Asks for the style, offering those that fit."""
        fitting = {
            name: style
            for name, style in self.styles.items()
            if not isinstance(style.options(found, size_hw, {}), str)
        }
        if not fitting:
            return f"{describe_found(found)} are of no style known here of this family"
        first, *others = fitting
        rest = f"  # or {', '.join(map(_quoted, others))}" if others else ""
        return Question(
            f"{describe_found(found)} fit, but not the frameworks' different anchors, offsets "
            "and colours: the outputs do not say which made it",
            spec_text=f'family = "{self.name}"\n[options]\nstyle = "{first}"{rest}',
        )

    def activation_left(self, summary: GraphSummary, found: FoundOutputs, usual: str) -> str | None:
        """Returns what the network proves to be left to do to its classes; None where nothing is.

        Args:
            summary: The network.
            found: Its outputs.
            usual: What makes scores of logits.
        """
        return find_activation(summary, found.names["class"], usual)

    def _activations(
        self,
        summary: GraphSummary,
        found: FoundOutputs,
        given: Mapping[str, Any],
        style: str,
        more: Options,
    ) -> Options | Question:
        """Returns the activations of classes and qualities: the user's, or what is proven."""
        text = f'style = "{style}"\n'
        usual = str(more.get("score_activation", self.activation))
        left = choice(given, "score_activation", ACTIVATIONS)
        left = left or self.activation_left(summary, found, usual)
        if left is None:
            names = found.names["class"]
            return activation_question(summary, names, self.name, usual, "score_activation", text)
        options: Options = {"score_activation": left}
        if "quality" in found.names:
            names, key = found.names["quality"], "quality_activation"
            left = choice(given, key, QUALITY_ACTIVATIONS)
            left = left or find_activation(summary, names, "sigmoid")
            if left is None:
                return activation_question(summary, names, self.name, "sigmoid", key, text)
            options[key] = left
        return options

    @staticmethod
    def _keypoints(
        summary: GraphSummary, found: FoundOutputs, landmarks: tuple[str, ...]
    ) -> KeypointSpec:
        """Returns what the points of each prediction are."""
        shapes = [summary.outputs[name].shape for name in landmarks]
        numbers = sum(math.prod(int(dim or 0) for dim in shape) for shape in shapes)
        return landmark_spec(numbers // sum(found.rows))

    def _recognition(
        self,
        summary: GraphSummary,
        size_hw: tuple[int, int],
        given: Mapping[str, Any],
        found: FoundOutputs,
        proven: tuple[str, str],
        more: Options,
    ) -> Recognition | str:
        options, style = given.get("options", {}), self._style(proven[0])
        background = options.get("background") or more.get("background", "none")
        labels = choose_labels(summary.metadata, found.columns - (background != "none"), given)
        if isinstance(labels, str):
            return labels
        line = (
            f"boxes, input and thresholds as in {style.about}, {proven[1]}; of another source, "
            "give options.style or the values in a spec"
        )
        pixels = fed_input(summary, style.input, line, self.name, given)
        if isinstance(pixels, str):
            return pixels
        activations = self._activations(summary, found, options, proven[0], more)
        if isinstance(activations, str):
            return activations
        landmarks = names_of(options, "landmark_outputs", summary.outputs)
        others = {name for names in found.names.values() for name in names}
        if taken := others.intersection(landmarks or ()):
            raise InputError(
                f"the spec's options.landmark_outputs has {', '.join(sorted(taken))}, which holds "
                "classes or boxes; name the outputs of points beside each box, or leave it away"
            )
        landmarks = landmarks or self.landmarks(summary, found)
        points = self._keypoints(summary, found, landmarks) if landmarks else None
        names = {**found.names, "landmark": landmarks} if landmarks else found.names
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=style.postprocess,
            keypoints=points,
            options={
                **{f"{kind}_outputs": list(outputs) for kind, outputs in names.items()},
                "grids": [list(grid) for grid in found.grids],
                "style": proven[0],
                **more,
                **activations,
            },
        )
        activation = activations["score_activation"]
        inside = "already activated" if activation == "none" else f"the {activation} is added"
        reasons = (
            describe_found(found),
            pixels[1],
            f"class outputs {', '.join(found.names['class'])}: {inside}",
            *(() if points is None else (keypoints_line(points, landmarks),)),
            labels[1],
            f"score {style.postprocess.score_threshold}, IoU {style.postprocess.iou_threshold}, "
            f"boxes cut to the {size_hw[0]}x{size_hw[1]} input before suppression",
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)


def _custom(found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]) -> Options:
    """Options of a source of its own: strides from the grids, the rest from the spec."""
    strides = doubling_strides(found.grids, size_hw)
    even = [[size_hw[0] / grid[0], size_hw[1] / grid[1]] for grid in found.grids]
    options: Options = {"strides": even if strides is None else list(strides)}
    if found.box_channels > 4:
        options["reg_max"] = found.box_channels // 4 - 1
    return options


# MMDetection's detectors, in small letters as MMDeploy writes them, whose heads are a family's.
_MMDETECTION_MODELS = {
    "atss": "atss",
    "ddod": "atss",
    "fcos": "fcos",
    "gfl": "gfl",
    "retinanet": "retinanet",
    "rtmdet": "rtmdet",
    "singlestagedetector": "ssd",
}
_CUSTOM = "custom"
_CUSTOM_STYLE = Style(
    about="the spec itself",
    input={},
    postprocess=PostprocessSpec(pre_nms_top_k=5000, multi_label=True),
    options=_custom,
)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _regrid(
    found: FoundOutputs,
    grids: tuple[tuple[int, int], ...],
    size_hw: tuple[int, int],
    per_cell: Sequence[int],
) -> FoundOutputs | str:
    """Returns the outputs on these grids, or why they are not on those.

    ``per_cell`` is empty where every cell has as many boxes.
    """
    cells = [height * width for height, width in grids]
    counts = list(per_cell) or [sum(found.rows) // sum(cells)] * len(cells)
    rows = tuple(count * each for count, each in zip(cells, counts, strict=False))
    whole = sum(rows) == sum(found.rows) and len(rows) == len(cells)
    if not whole or (len(found.rows) > 1 and rows != found.rows):
        return (
            f"grids of {cells} cells at {size_hw[0]}x{size_hw[1]} do not hold its "
            f"{list(found.rows)} boxes: correct options.strides, options.grids or options.anchors"
        )
    return dataclasses.replace(found, grids=grids, rows=rows)

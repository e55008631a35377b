"""NanoDet-Plus: class scores and box distributions of every cell in one output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.dense import DenseHead, Options, Style
from tvmdet.heads.dense_inputs import RTMDET_BGR, stretched
from tvmdet.heads.dense_layout import LARGEST_REG_MAX
from tvmdet.heads.dense_outputs import FoundOutputs
from tvmdet.heads.grids import doubling_strides
from tvmdet.heads.options import names_of, whole_number
from tvmdet.heads.score_evidence import are_logits, are_scores
from tvmdet.spec import PostprocessSpec

__all__ = ["NanoDetPlusHead"]

_SOURCES = frozenset({"Sigmoid", "Conv"})


def _options(
    found: FoundOutputs, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Options | str:
    """Options of nanodet_plus_head.py: centres at multiples of the stride, 8 to 64."""
    strides = given.get("strides") or doubling_strides(found.grids, size_hw)
    if strides is None:
        return "its strides double from level to level: give options.strides"
    return {
        "offset": 0.0,
        "reg_max": found.box_channels // 4 - 1,
        "strides": list(strides),
    }


class NanoDetPlusHead(DenseHead):
    """One output ``[N, A, C + 4 * (reg_max + 1)]``: class scores, then distributions.

    Its scores have been through a sigmoid and its distributions are straight from a convolution,
    both in one output, which no other family has; how many columns are which the graph says.
    Input and thresholds are those of config/nanodet-plus-m_*.yml: BGR, stretched.
    """

    name = "nanodet_plus"
    title = "NanoDet-Plus, class scores and box distributions in one output"
    coding = "distribution"
    styles: ClassVar[Mapping[str, Style]] = {
        "nanodet_plus": Style(
            about="NanoDet-Plus-m",
            # cv2.warpPerspective in nanodet/data/transform/warp.py.
            input={**stretched(RTMDET_BGR), "interpolation": "warp", "pad_value": 0},
            postprocess=PostprocessSpec(
                score_threshold=0.05,
                iou_threshold=0.6,
                max_detections=100,
                pre_nms_top_k=1000,
                multi_label=True,
            ),
            options=_options,
        ),
    }
    pyramids = (((8, 16, 32, 64), 1), ((8, 16, 32), 1))

    def find(self, summary: GraphSummary, given: Mapping[str, Any]) -> FoundOutputs | str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.find`."""
        options = given.get("options", {})
        named = names_of(options, "class_outputs", summary.outputs) or tuple(summary.outputs)
        if len(named) != 1:
            return f"it has {len(named)} outputs; this family has one"
        (name,) = named
        shape = summary.outputs[name].shape
        if len(shape) != 3 or None in shape:
            return f"{name} is {summary.outputs[name]}; this family's is [N, boxes, channels]"
        rows, channels = int(shape[1] or 0), int(shape[2] or 0)
        sources = summary.output_sources.get(name, frozenset())
        if sources != _SOURCES and given.get("family") != self.name:
            shown = ", ".join(sorted(sources)) or "unknown operators"
            return f"the values of {name} come from {shown}; this family's from Sigmoid and Conv"
        pairs = _pairs(summary.output_maps.get(name, ()), channels)
        if pairs:
            columns, box_channels, grids = pairs
        else:
            box_channels = _box_channels(given, channels)
            columns, grids = channels - box_channels, ()
        if not box_channels:
            return (
                f"{name} has {channels} channels, of which the graph does not tell which are "
                "classes: give labels or options.reg_max"
            )
        levels = tuple(height * width for height, width in grids) or (rows,)
        return FoundOutputs(
            names={"class": (name,), "box": (name,)},
            grids=grids,
            rows=levels,
            columns=columns,
            box_channels=box_channels,
        )

    def misfit(self, found: FoundOutputs, size_hw: tuple[int, int]) -> str:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.misfit`."""
        if doubling_strides(found.grids, size_hw) is None:
            return "its levels have not strides that double"
        return ""

    def proven_style(
        self, summary: GraphSummary, found: FoundOutputs, size_hw: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.proven_style`."""
        return "nanodet_plus", "by scores and distributions in one output"

    def activation_left(self, summary: GraphSummary, found: FoundOutputs, usual: str) -> str | None:
        """Implements :meth:`tvmdet.heads.dense.DenseHead.activation_left`."""
        (name,) = found.names["class"]
        if are_logits(summary, name, axis=2, stop=found.columns):
            return usual
        proven = are_scores(summary, name, axis=2, stop=found.columns)
        # One of the two is the scores' Sigmoid: distributions have none.
        return "none" if proven or summary.output_sources.get(name) == _SOURCES else None


def _pairs(
    maps: tuple[tuple[int, ...], ...], channels: int
) -> tuple[int, int, tuple[tuple[int, int], ...]] | None:
    """Returns class columns, box channels and grids of maps joined in pairs, or None."""
    if not maps or len(maps) % 2:
        return None
    classes, boxes = maps[0::2], maps[1::2]
    if {a[2:] == b[2:] for a, b in zip(classes, boxes, strict=True)} != {True}:
        return None
    counts = {(a[1], b[1]) for a, b in zip(classes, boxes, strict=True)}
    if len(counts) != 1:
        return None
    ((columns, box_channels),) = counts
    if columns + box_channels != channels or box_channels % 4 or box_channels < 8:
        return None
    return columns, box_channels, tuple((shape[2], shape[3]) for shape in classes)


def _box_channels(given: Mapping[str, Any], channels: int) -> int:
    """Returns the box channels that the user's spec means, or 0."""
    reg_max = whole_number(given.get("options", {}), "reg_max", 1, LARGEST_REG_MAX)
    if reg_max is not None:
        return 4 * (reg_max + 1)
    rest = channels - len(given.get("labels") or ())
    return rest if given.get("labels") and rest % 4 == 0 and rest >= 8 else 0

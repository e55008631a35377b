"""What a spec's options say about a dense head, checked once and read by everything else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tvmdet.errors import InputError
from tvmdet.heads.anchors import anchor_shapes
from tvmdet.heads.grids import Grid
from tvmdet.heads.options import choice, refuse_unknown_options, whole_number
from tvmdet.spec import DetectorSpec

__all__ = [
    "ACTIVATIONS",
    "COMMON_OPTIONS",
    "LARGEST_REG_MAX",
    "QUALITY_ACTIVATIONS",
    "Coding",
    "DenseLayout",
    "grid_sizes",
    "options_of",
    "stride_pairs",
]

Float64 = npt.NDArray[np.float64]
Coding = Literal["deltas", "distances", "distribution"]

ACTIVATIONS = ("none", "sigmoid", "softmax")
QUALITY_ACTIVATIONS = ("none", "sigmoid")
COMMON_OPTIONS = (
    "background",
    "box_outputs",
    "class_outputs",
    "grids",
    "landmark_outputs",
    "offset",
    "quality_activation",
    "quality_outputs",
    "score_activation",
    "score_rule",
    "strides",
    "style",
)
_CODING_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "deltas": ("anchors", "box_order", "box_stds", "size_limits"),
    "distances": ("distance_activation", "distance_unit", "per_cell"),
    "distribution": ("reg_max",),
}
_LARGEST_GRID = 4096
_MOST_PER_CELL = 64
LARGEST_REG_MAX = 32


def options_of(coding: Coding) -> tuple[str, ...]:
    """Returns the options that a head with that coding of boxes has."""
    return tuple(sorted((*COMMON_OPTIONS, *_CODING_OPTIONS[coding])))


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseLayout:
    """The outputs of a dense head and what their numbers mean.

    Attributes:
        class_outputs: Names, one for each level or one for all.
        box_outputs: Likewise. The same as ``class_outputs`` where one output holds both, the
            classes first.
        quality_outputs: Likewise, of centerness or another share of the score; may be empty.
        landmark_outputs: Likewise, of points beside each box; empty where nobody asks for them.
        landmark_channels: Numbers of one prediction's points.
        grids: The levels.
        shapes: Per level the anchors' ``[k, 2]`` widths and heights; empty without anchors.
        columns: Class columns, the background's too.
        box_channels: Numbers of a box.
        per_cell: Predictions at a cell, one after the other, where there are no anchors.
    """

    class_outputs: tuple[str, ...]
    box_outputs: tuple[str, ...]
    quality_outputs: tuple[str, ...]
    landmark_outputs: tuple[str, ...]
    landmark_channels: int
    grids: tuple[Grid, ...]
    shapes: tuple[Float64, ...]
    columns: int
    box_channels: int
    size_hw: tuple[int, int]
    score_activation: str = "sigmoid"
    quality_activation: str = "sigmoid"
    background: str = "none"
    score_rule: str = "product"
    box_stds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    swapped: bool = False
    size_limits: tuple[float, float] | None = None
    distance_activation: str = "none"
    distance_unit: str | tuple[float, ...] = "strides"
    per_cell: int = 1

    @classmethod
    def of(cls, spec: DetectorSpec, coding: Coding) -> DenseLayout:
        """Reads a spec.

        Raises:
            InputError: An option is unknown, missing, malformed or does not fit the others.
        """
        options = spec.options
        refuse_unknown_options(options, spec.family, options_of(coding))
        grids = _grids(options)
        background = choice(options, "background", ("none", "first", "last")) or "none"
        shapes = anchor_shapes(_need(options, "anchors")) if coding == "deltas" else ()
        if shapes and len(shapes) != len(grids):
            raise InputError(
                f"the spec's options.anchors are of {len(shapes)} levels; options.strides "
                f"have {len(grids)}: give anchors for each"
            )
        bins = 1
        if coding == "distribution":
            bins = (whole_number(options, "reg_max", 1, LARGEST_REG_MAX) or 0) + 1
            _need(options, "reg_max")
        return cls(
            class_outputs=_names(options, "class_outputs", len(grids)),
            box_outputs=_names(options, "box_outputs", len(grids)),
            quality_outputs=_names(options, "quality_outputs", len(grids), needed=False),
            landmark_outputs=()
            if spec.keypoints is None
            else _names(options, "landmark_outputs", len(grids)),
            landmark_channels=0 if spec.keypoints is None else spec.keypoints.columns,
            grids=grids,
            shapes=shapes,
            columns=len(spec.labels) + (background != "none"),
            box_channels=4 * bins,
            size_hw=spec.input.size_hw,
            score_activation=choice(options, "score_activation", ACTIVATIONS) or "sigmoid",
            quality_activation=choice(options, "quality_activation", QUALITY_ACTIVATIONS)
            or "sigmoid",
            background=background,
            score_rule=choice(options, "score_rule", ("product", "sqrt")) or "product",
            box_stds=_four(options),
            swapped=choice(options, "box_order", ("xywh", "yxhw")) == "yxhw",
            size_limits=_limits(options),
            distance_activation=choice(options, "distance_activation", ("none", "relu", "exp"))
            or "none",
            distance_unit=_distance_unit(options, len(grids)),
            per_cell=whole_number(options, "per_cell", 1, _MOST_PER_CELL) or 1,
        )

    @property
    def joint(self) -> bool:
        """Whether one output holds classes and boxes of the same anchors."""
        return self.class_outputs == self.box_outputs

    def rows(self) -> tuple[int, ...]:
        """Returns the predictions of each level."""
        per_cell = [len(shape) for shape in self.shapes] or [self.per_cell] * len(self.grids)
        return tuple(grid.cells * count for grid, count in zip(self.grids, per_cell, strict=True))

    def parts(self, names: tuple[str, ...]) -> list[tuple[str, tuple[int, int] | None, int]]:
        """Returns what to read of one kind: output, grid (None for all levels), predictions."""
        rows = self.rows()
        if len(names) == 1 and len(rows) > 1:
            return [(names[0], None, sum(rows))]
        sizes = (grid.size_hw for grid in self.grids)
        return list(zip(names, sizes, rows, strict=True))

    def anchors(self) -> Float64:
        """Returns the anchors ``[A, 4]`` as centre x, centre y, width, height."""
        levels = []
        for grid, shapes in zip(self.grids, self.shapes, strict=True):
            centers = np.repeat(grid.centers(), len(shapes), axis=0)
            levels.append(np.concatenate([centers, np.tile(shapes, (grid.cells, 1))], axis=1))
        return np.concatenate(levels)

    def points(self) -> tuple[Float64, Float64]:
        """Returns the centres ``[A, 2]`` and the pixels in a distance of 1, both as x, y."""
        each = self.per_cell
        centers = np.concatenate([grid.centers() for grid in self.grids]).repeat(each, axis=0)
        if self.distance_unit == "pixels":
            return centers, np.ones_like(centers)
        sides = [grid.stride_yx[::-1] for grid in self.grids]
        if not isinstance(self.distance_unit, str):
            sides = [(unit, unit) for unit in self.distance_unit]
        units = [np.tile(s, (g.cells * each, 1)) for s, g in zip(sides, self.grids, strict=True)]
        return centers, np.concatenate(units)


def _need(options: Mapping[str, Any], name: str) -> Any:
    if options.get(name) is None:
        raise InputError(f"the spec's options lack {name!r}; give it, or leave the table away")
    return options[name]


def _names(
    options: Mapping[str, Any], key: str, levels: int, *, needed: bool = True
) -> tuple[str, ...]:
    if not needed and options.get(key) in (None, [], ()):
        return ()
    given: Any = _need(options, key)
    listed = isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)
    if not listed or len(set(given)) != len(given) or len(given) not in (1, levels):
        raise InputError(
            f"the spec's options.{key} is {given!r}; allowed: a list of the network's outputs, "
            f"one for all levels or one for each of the {levels}"
        )
    return tuple(given)


def _grids(options: Mapping[str, Any]) -> tuple[Grid, ...]:
    strides = stride_pairs(_need(options, "strides"))
    sizes = grid_sizes(_need(options, "grids"))
    offset = _need(options, "offset")
    if not _is_number(offset) or not 0 <= offset <= 1:
        raise InputError(f"the spec's options.offset is {offset!r}; allowed: a number, 0 to 1")
    if len(sizes) != len(strides):
        raise InputError(
            f"the spec's options.grids are {len(sizes)} levels, options.strides {len(strides)}: "
            "give as many of both"
        )
    return tuple(
        Grid(size_hw=size, stride_yx=stride, offset=float(offset))
        for size, stride in zip(sizes, strides, strict=True)
    )


def grid_sizes(given: Any) -> tuple[tuple[int, int], ...]:
    """Returns the rows and columns of each level.

    Raises:
        InputError: They are no such list.
    """
    listed = isinstance(given, list | tuple) and len(given) > 0
    pairs = listed and all(
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(type(side) is int and 1 <= side <= _LARGEST_GRID for side in size)
        for size in given
    )
    if not pairs:
        raise InputError(
            f"the spec's options.grids is {given!r}; allowed: [rows, columns] for each level"
        )
    return tuple((size[0], size[1]) for size in given)


def stride_pairs(given: Any) -> tuple[tuple[float, float], ...]:
    """Returns strides as y, x for each level, from numbers or pairs of them.

    Raises:
        InputError: They are no such list.
    """
    found: list[tuple[float, float]] = []
    for stride in given if isinstance(given, list | tuple) else ():
        pair = tuple(stride) if isinstance(stride, list | tuple) else (stride, stride)
        if len(pair) != 2 or not all(_is_number(side) and 0 < side <= 4096 for side in pair):
            found = []
            break
        found.append((float(pair[0]), float(pair[1])))
    if not found:
        raise InputError(
            f"the spec's options.strides is {given!r}; allowed: a number of pixels for each "
            "level, such as [8, 16, 32], or [y, x] for each"
        )
    return tuple(found)


def _distance_unit(options: Mapping[str, Any], levels: int) -> str | tuple[float, ...]:
    given = options.get("distance_unit")
    if isinstance(given, list | tuple) and len(given) == levels:
        if all(_is_number(unit) and unit > 0 for unit in given):
            return tuple(float(unit) for unit in given)
    elif given in (None, "strides", "pixels"):
        return given or "strides"
    raise InputError(
        f"the spec's options.distance_unit is {given!r}; allowed: strides, pixels, or a number "
        f"of pixels for each of the {levels} levels"
    )


def _four(options: Mapping[str, Any]) -> tuple[float, ...]:
    given = options.get("box_stds")
    if given is None:
        return (1.0, 1.0, 1.0, 1.0)
    numbers = isinstance(given, list | tuple) and len(given) == 4
    if not numbers or not all(_is_number(value) and value > 0 for value in given):
        raise InputError(
            f"the spec's options.box_stds is {given!r}; allowed: four positive numbers, such as "
            "[0.1, 0.1, 0.2, 0.2] (1 / weights in torchvision, the variances of SSD)"
        )
    return tuple(float(value) for value in given)


def _limits(options: Mapping[str, Any]) -> tuple[float, float] | None:
    given = options.get("size_limits")
    if given is None or given == []:
        return None
    numbers = isinstance(given, list | tuple) and len(given) == 2
    if not numbers or not all(_is_number(value) and value >= 0 for value in given):
        raise InputError(
            f"the spec's options.size_limits is {given!r}; allowed: smallest and largest growth "
            "of an anchor, 0 for none, such as [0, 62.5]"
        )
    return float(given[0]), float(given[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)

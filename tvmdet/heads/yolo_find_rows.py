"""Which output of a network holds one row of values per anchor, and what lies beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmdet.errors import InputError
from tvmdet.heads.base import GraphSummary, Question
from tvmdet.heads.input_defaults import says_how
from tvmdet.heads.options import choice, strides_of
from tvmdet.heads.pose import KEYPOINT_COLUMNS
from tvmdet.heads.yolo_rows import LAYOUTS, RowFormat

__all__ = ["FoundRows", "SeveralFit", "describe_rows", "find_rows", "rows_options"]

_PROTOTYPE_STRIDES = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class FoundRows:
    """Where the rows of a network are.

    Attributes:
        output: Name of the output.
        layout: ``channels_first`` for ``[N, V, A]``, ``channels_last`` for ``[N, A, V]``.
        strides: Strides of the feature pyramid.
        values: How many values a row has.
        anchors: How many rows there are.
        prototypes: Name and number of the mask prototypes, or None.
        ignored: Outputs that are not used.
        keypoint_columns: How many numbers of keypoints end a row.
        ends_in_angle: Whether the last value of a row is the angle of an oriented box.
    """

    output: str
    layout: str
    strides: tuple[int, ...]
    values: int
    anchors: int
    prototypes: tuple[str, int] | None = None
    ignored: tuple[str, ...] = ()
    keypoint_columns: int = 0
    ends_in_angle: bool = False

    @property
    def axis(self) -> int:
        """The dimension along which a row lies."""
        return 1 if self.layout == "channels_first" else 2

    @property
    def coefficients(self) -> int:
        """How many mask coefficients end a row."""
        return self.prototypes[1] if self.prototypes else 0

    @property
    def trailing(self) -> int:
        """How many values of a row follow the class scores."""
        return self.coefficients + self.keypoint_columns + self.ends_in_angle


class SeveralFit(str):
    """A refusal because several outputs have the form of rows.

    Attributes:
        outputs: Their names, in the network's order.
    """

    outputs: tuple[str, ...]

    def __new__(cls, outputs: Sequence[str]) -> SeveralFit:
        """Makes the sentence that names them."""
        text = f"several outputs fit ({', '.join(outputs)}): name one in the spec's options.output"
        refusal = super().__new__(cls, text)
        refusal.outputs = tuple(outputs)
        return refusal


def find_rows(
    form: RowFormat, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> FoundRows | str:
    """Finds the output that holds the rows, or returns one sentence that says why not.

    Beside it there may be mask prototypes, and the raw maps that the rows were made from.
    """
    options = given.get("options", {})
    wanted = choice(options, "output", tuple(summary.outputs))
    names = [wanted] if wanted else [n for n, v in summary.outputs.items() if len(v.shape) == 3]
    if not names and len(summary.outputs) == 1:
        names = list(summary.outputs)
    if not names:
        return (
            f"it has {len(summary.outputs)} outputs, none of three dimensions; this family's "
            f"is [N, {form.lead} + classes, anchors] or [N, anchors, {form.lead} + classes]"
        )
    answers = [_fit(form, name, summary, size_hw, options) for name in names]
    fitting = [answer for answer in answers if isinstance(answer, FoundRows)]
    if not fitting:
        told = options.get("strides") is not None or options.get("layout") is not None
        if told and given.get("family") == form.family:
            raise InputError(str(answers[0]))
        return str(answers[0])
    if len(fitting) > 1:
        return SeveralFit([found.output for found in fitting])
    return _with_others(form, fitting[0], summary, size_hw, given)


def _fit(
    form: RowFormat,
    name: str,
    summary: GraphSummary,
    size_hw: tuple[int, int],
    options: Mapping[str, Any],
) -> FoundRows | str:
    """Returns how an output fits, or why it does not."""
    output = summary.outputs[name]
    if len(output.shape) != 3 or None in output.shape:
        return (
            f"{name} is {output}; this family's is [N, {form.lead} + classes, anchors] or "
            f"[N, anchors, {form.lead} + classes]"
        )
    wanted, layout = strides_of(options), choice(options, "layout", LAYOUTS)
    first, second = int(output.shape[1] or 0), int(output.shape[2] or 0)
    for strides in (wanted,) if wanted else form.pyramids:
        anchors = form.anchors(size_hw, strides)
        for place, rows, values in zip(LAYOUTS, (second, first), (first, second), strict=True):
            if rows == anchors and values > form.lead and layout in (None, place):
                return FoundRows(
                    output=name, layout=place, strides=strides, values=values, anchors=anchors
                )
    return f"{name} is {output}: {_misfit(form, size_hw, (first, second), options)}"


def _misfit(
    form: RowFormat, size_hw: tuple[int, int], got: tuple[int, int], options: Mapping[str, Any]
) -> str:
    wanted, layout = strides_of(options), choice(options, "layout", LAYOUTS)
    pyramids = (wanted,) if wanted else form.pyramids
    counts = ", ".join(str(form.anchors(size_hw, strides)) for strides in pyramids)
    size = f"{size_hw[0]}x{size_hw[1]}"
    if wanted or layout:
        where = {"channels_first": "last", "channels_last": "middle"}.get(layout or "", "any")
        return (
            f"the spec's options.strides {list(wanted or pyramids[0])} and layout "
            f"{layout or 'either'} mean {counts} anchors at {size} in the "
            f"{where} dimension of the output, which is [N, {got[0]}, {got[1]}]: correct "
            "them, or leave them away to have them recognised"
        )
    cells = form.anchors(size_hw, form.pyramids[0]) // form.per_cell
    if form.per_cell == 1 and 3 * cells in got:
        return (
            f"{3 * cells} rows are three anchors a cell, as YOLOv5 and YOLOv7 have; "
            f"this family has one ({cells} at {size})"
        )
    if form.per_cell > 1 and cells in got:
        return (
            f"{cells} rows are one anchor a cell, as YOLOv6, YOLOv8 and YOLOX have; "
            f"this family has {form.per_cell} ({form.per_cell * cells} at {size})"
        )
    return f"neither dimension is a number of anchors that this family has at {size} ({counts})"


def _with_others(
    form: RowFormat,
    found: FoundRows,
    summary: GraphSummary,
    size_hw: tuple[int, int],
    given: Mapping[str, Any],
) -> FoundRows | str:
    """Gives the other outputs a meaning, or says which has none."""
    options = given.get("options", {})
    wanted = choice(options, "prototypes", tuple(summary.outputs)) if form.masks else None
    prototypes, ignored, strange = [], [], []
    for name, value in summary.outputs.items():
        shape = tuple(int(dim or 0) for dim in value.shape)
        if name == found.output:
            continue
        fits = _is_prototypes(form, shape, found.values, size_hw)
        # As large as the picture, it is more often a map of roads or the like.
        if fits and (shape[2:] != size_hw or name == wanted or _mixes(summary, found, shape[1])):
            prototypes.append((name, shape[1]))
        elif _is_side_map(form, shape, found.values, size_hw, found.strides):
            ignored.append(name)
        else:
            strange.append(name)
    if wanted is not None:
        prototypes = [pair for pair in prototypes if pair[0] == wanted]
    whole = {name for name, value in summary.outputs.items() if value.shape[2:] == size_hw}
    if len(prototypes) > 1 and whole.issuperset(name for name, _ in prototypes):
        strange += [name for name, _ in prototypes]  # masks are mixed from one
        prototypes = []
    maps = [name for name in strange if name in whole]
    if maps and not says_how(given):
        return _ask_of_tasks(form, found.output, maps)
    named = options.get("output") is not None
    if (strange and not named) or len(prototypes) > 1:
        return (
            f"it has {len(summary.outputs)} outputs; this family has one"
            f"{' (two with masks)' if form.masks else ''}: "
            "name it in the spec's options.output"
        )
    return FoundRows(
        output=found.output,
        layout=found.layout,
        strides=found.strides,
        values=found.values,
        anchors=found.anchors,
        prototypes=prototypes[0] if prototypes else None,
        ignored=(*ignored, *strange),
    )


def _ask_of_tasks(form: RowFormat, output: str, maps: Sequence[str]) -> Question:
    """Asks how a network is fed that finds areas beside boxes, as YOLOP finds roads.

    It is none of its authors' detectors, and need not be fed as they are.
    """
    return Question(
        f"beside {output}, which fits, it has maps of the whole picture, which none of this family "
        f"has ({', '.join(maps)}): say what is fed to it",
        spec_text=f'family = "{form.family}"\n[options]\noutput = "{output}"\n'
        "[input]    # what the network was trained with; YOLOP: ImageNet's, as here\n"
        "mean = [123.675, 116.28, 103.53]    # in pixel units; or [0.0, 0.0, 0.0]\n"
        "std = [58.395, 57.12, 57.375]       # or [255.0, 255.0, 255.0]",
    )


def _mixes(summary: GraphSummary, found: FoundRows, count: int) -> bool:
    """Returns whether so many values that end a row are known, and are no scores."""
    runs = summary.column_runs(found.output, found.axis, found.values - count, found.values)
    return bool(runs) and not any(run.is_score for run in runs)


def _is_prototypes(
    form: RowFormat, shape: tuple[int, ...], values: int, size_hw: tuple[int, int]
) -> bool:
    return (
        form.masks
        and len(shape) == 4
        and 0 < shape[1] < values - form.lead
        and any(
            shape[2:] == (size_hw[0] // stride, size_hw[1] // stride)
            for stride in _PROTOTYPE_STRIDES
        )
    )


def _is_side_map(
    form: RowFormat,
    shape: tuple[int, ...],
    values: int,
    size_hw: tuple[int, int],
    strides: tuple[int, ...],
) -> bool:
    """Whether an output is one of the raw maps that the rows were made from."""
    cells = {(size_hw[0] // stride, size_hw[1] // stride) for stride in strides}
    if len(shape) == 5:
        return shape[1:] in {(form.per_cell, *cell, values) for cell in cells}
    return len(shape) == 4 and shape[1] >= values and shape[2:] in cells


def rows_options(found: FoundRows) -> dict[str, Any]:
    """Returns the options of a spec that say where the rows are."""
    options: dict[str, Any] = {
        "layout": found.layout,
        "output": found.output,
        "strides": list(found.strides),
    }
    if found.prototypes:
        options["prototypes"] = found.prototypes[0]
    if found.keypoint_columns:
        options[KEYPOINT_COLUMNS] = found.keypoint_columns
    return options


def describe_rows(
    found: FoundRows, size_hw: tuple[int, int], lead: str, classes: int
) -> tuple[str, ...]:
    """Returns what was recognised, one fact a line; ``lead`` says what rows begin with."""
    sizes = (found.values, found.anchors)
    first, second = sizes if found.layout == "channels_first" else sizes[::-1]
    strides = ", ".join(str(stride) for stride in found.strides)
    also = f" + {found.coefficients} mask rows" if found.prototypes else ""
    also += f" + {found.keypoint_columns} keypoint rows" if found.keypoint_columns else ""
    also += " + the angle of an oriented box" if found.ends_in_angle else ""
    lines = [
        f"{found.output} is [N, {first}, {second}]: {lead} + {classes} class rows{also}, one "
        f"column per anchor of strides {strides} at {size_hw[0]}x{size_hw[1]}"
    ]
    if found.prototypes:
        lines.append(f"{found.prototypes[0]} holds {found.prototypes[1]} mask prototypes")
    if found.ignored:
        lines.append(f"{', '.join(found.ignored)} not used: {found.output} holds the decoded boxes")
    return tuple(lines)

"""The levels of a PicoDet / GFL network: which outputs belong together, and what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmdet.errors import InputError
from tvmdet.heads.base import GraphSummary
from tvmdet.heads.labels import labels_from_metadata
from tvmdet.heads.options import names_of, strides_of, whole_number
from tvmdet.heads.score_evidence import are_scores

__all__ = [
    "LARGEST_REG_MAX",
    "Level",
    "assign_roles",
    "check_count",
    "count_cells",
    "find_strides",
    "pair_levels",
]

LARGEST_REG_MAX = 32
_FIRST_STRIDES = (8, 4, 16)


@dataclass(frozen=True, kw_only=True)
class Level:
    """Two outputs that have the same number of cells."""

    cells: int
    outputs: tuple[tuple[str, int], ...]  # name and channels


def pair_levels(summary: GraphSummary, options: Mapping[str, Any]) -> list[Level] | str:
    """Returns the levels, finest first, or why the outputs are no pairs.

    Outputs that the spec does not name are left away when it names both kinds.
    """
    considered = dict(summary.outputs)
    if options.get("class_outputs") is not None and options.get("box_outputs") is not None:
        keys = ("class_outputs", "box_outputs")
        named = {name for key in keys for name in names_of(options, key, summary.outputs) or ()}
        considered = {name: considered[name] for name in considered if name in named}
    if len(considered) < 4 or len(considered) % 2:
        return f"it has {len(considered)} outputs; this family has two for each level"
    by_cells: dict[int, list[tuple[str, int]]] = {}
    for name, output in considered.items():
        dims = [dim for dim in output.shape if dim is not None]
        if len(dims) != len(output.shape) or len(dims) not in (3, 4):
            return f"{name} is {output}; this family's are [N, cells, C] or [N, C, H, W]"
        cells, channels = (dims[1], dims[2]) if len(dims) == 3 else (dims[2] * dims[3], dims[1])
        by_cells.setdefault(cells, []).append((name, channels))
    for cells, outputs in by_cells.items():
        if len(outputs) != 2:
            return f"{len(outputs)} outputs have {cells} cells; this family has two for each level"
    ordered = sorted(by_cells.items(), reverse=True)
    return [Level(cells=cells, outputs=tuple(outputs)) for cells, outputs in ordered]


def count_cells(size_hw: tuple[int, int], stride: int) -> int:
    """Returns the cells of a level; sides that do not divide are rounded up."""
    return -(-size_hw[0] // stride) * -(-size_hw[1] // stride)


def find_strides(
    cells: Sequence[int], size_hw: tuple[int, int], options: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """Returns the doubling strides that give these cells, or those of the spec.

    Raises:
        InputError: Those of the spec do not give these cells.
    """
    wanted = strides_of(options)
    if wanted is not None:
        check_count(wanted, len(cells), "levels")
        needed = [count_cells(size_hw, stride) for stride in wanted]
        if needed != list(cells):
            raise InputError(
                f"the spec's options.strides {list(wanted)} mean levels of {needed} cells at "
                f"{size_hw[0]}x{size_hw[1]}; the network's have {list(cells)}: correct them, or "
                "leave them away to have them recognised"
            )
        return wanted
    for start in _FIRST_STRIDES:
        strides = tuple(start * 2**level for level in range(len(cells)))
        if [count_cells(size_hw, stride) for stride in strides] == list(cells):
            return strides
    return None


def assign_roles(
    levels: Sequence[Level], summary: GraphSummary, given: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...], int, int] | str:
    """Tells class outputs from box outputs.

    Returns:
        Class outputs, box outputs, number of classes and box channels; or why they cannot be
        told apart.
    """
    options = given.get("options", {})
    boxes = names_of(options, "box_outputs", summary.outputs) or ()
    scores = names_of(options, "class_outputs", summary.outputs) or ()
    reg_max = whole_number(options, "reg_max", 0, LARGEST_REG_MAX)
    labels = given.get("labels") or labels_from_metadata(summary.metadata)[0]
    found = []
    for level in levels:
        pairs = (level.outputs, level.outputs[::-1])
        fits = [
            pair
            for pair in pairs
            if (_is_box(pair[1][1]) if reg_max is None else pair[1][1] == 4 * (reg_max + 1))
            and (not labels or pair[0][1] == len(labels))
            and pair[0][0] not in boxes
            and pair[1][0] not in scores
        ]
        if len(fits) == 2:
            # Both channel counts could be either: only scores are bounded by 0 and 1.
            fits = [
                pair
                for pair in fits
                if are_scores(summary, pair[0][0]) and not are_scores(summary, pair[1][0])
            ]
        if len(fits) != 1:
            shown = " and ".join(f"{name} ({channels})" for name, channels in level.outputs)
            return (
                f"{shown} cannot be told apart as class scores and 4 * (reg_max + 1) box "
                "channels; give labels, or options.class_outputs and options.box_outputs"
            )
        found.append(fits[0])
    channels = {(pair[0][1], pair[1][1]) for pair in found}
    if len(channels) != 1:
        return f"the levels differ in channels (classes, box): {sorted(channels)}"
    ((classes, box_channels),) = channels
    class_names = tuple(pair[0][0] for pair in found)
    return class_names, tuple(pair[1][0] for pair in found), classes, box_channels


def check_count(strides: Sequence[int], count: int, what: str) -> None:
    """Refuses strides that are not one for each level.

    Raises:
        InputError: There are more or fewer.
    """
    if len(strides) != count:
        raise InputError(
            f"the spec's options.strides {list(strides)} has {len(strides)} entries for {count} "
            f"{what}; give one for each"
        )


def _is_box(channels: int) -> bool:
    return channels % 4 == 0 and 4 <= channels // 4 <= LARGEST_REG_MAX + 1

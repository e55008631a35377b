"""Class names out of an ONNX file's metadata."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from tvmdet.coco_names import spread_over_numbers
from tvmdet.heads.base import AtOdds, Question

__all__ = ["choose_labels", "class_names", "fits_classes", "labels_from_metadata"]

_LONGEST = 1_000_000  # characters; a list of 10,000 names is far below


def labels_from_metadata(metadata: Mapping[str, str]) -> tuple[tuple[str, ...] | None, str]:
    """Reads class names.

    Two keys are known: ``names``, a Python or JSON dictionary or list (Ultralytics), and
    ``character``, one name a line (Paddle models packed by RapidAI).

    Args:
        metadata: The file's metadata.

    Returns:
        The labels, or None, and a line that says where they came from or why there are none.
    """
    if "names" in metadata:
        labels = _literal_names(metadata["names"])
        if labels is None or not all(label.strip() for label in labels):
            return None, "the metadata key 'names' is not a dictionary or list of names"
        return labels, "labels from the metadata key 'names'"
    if metadata.get("character", "").strip():
        lines = [line.strip() for line in metadata["character"].strip("\n").splitlines()]
        if not all(lines):
            return None, "the metadata key 'character' has empty lines"
        return tuple(lines), "labels from the metadata key 'character'"
    return None, "the file's metadata hold no class names"


def choose_labels(
    metadata: Mapping[str, str], classes: int, given: Mapping[str, Any]
) -> tuple[tuple[str, ...], str] | str:
    """Chooses labels for a head that scores so many classes.

    COCO's 80 names fit the columns of a network that has one for each of COCO's numbers.

    Args:
        metadata: The file's metadata.
        classes: Number of classes that the network scores.
        given: The user's spec; its ``labels`` win.

    Returns:
        The labels and a line that says where they came from, or one sentence that says why
        the labels do not fit.
    """
    wanted = given.get("labels")
    if isinstance(wanted, Sequence) and not isinstance(wanted, str) and wanted:
        if len(wanted) != classes:
            if spread := spread_over_numbers(wanted, classes):
                return spread, f"labels from the spec, {_by_number(classes)}"
            return AtOdds(
                f"the spec gives {len(wanted)} labels, but the network scores {classes} classes"
            )
        return tuple(str(label) for label in wanted), "labels from the spec"
    labels, reason = labels_from_metadata(metadata)
    if labels is None:
        made = tuple(f"class_{index}" for index in range(classes))
        return made, f"{reason}: labels are {class_names(0, classes)}; give them in a spec"
    if len(labels) != classes:
        if spread := spread_over_numbers(labels, classes):
            return spread, f"{reason}, {_by_number(classes)}"
        if (len(labels), classes) in ((80, 90), (80, 91)):
            return _ask_for_numbers(classes)
        return f"the metadata name {len(labels)} classes, but the network scores {classes}"
    return labels, f"{reason} ({classes} classes)"


def fits_classes(labels: Sequence[str], classes: int) -> bool:
    """Returns whether labels name so many classes, or are COCO's for a column each number."""
    return len(labels) == classes or spread_over_numbers(labels, classes) is not None


def _by_number(classes: int) -> str:
    return f"at COCO's numbers {91 - classes} to 90 of {classes} columns"


def _ask_for_numbers(classes: int) -> Question:
    return Question(
        f"the metadata name 80 classes that are not COCO's, but the network scores {classes}, as "
        "those trained on COCO's numbers do: nothing says which columns are whose",
        spec_text=f'labels = ["first class", "second class"]    # {classes} names, one a column',
    )


def class_names(first: int, end: int) -> str:
    """Says which names are made up for classes from ``first`` up to ``end``, without it."""
    return f"class_{first}" if end - first == 1 else f"class_{first} to class_{end - 1}"


def _literal_names(text: str) -> tuple[str, ...] | None:
    """Returns the names in a literal, or None. Nothing in the text is ever executed."""
    if len(text) > _LONGEST:
        return None
    try:
        value = ast.literal_eval(text)
        if isinstance(value, dict):
            by_index = {int(key): str(name) for key, name in value.items()}
            if sorted(by_index) != list(range(len(by_index))):
                return None
            return tuple(by_index[index] for index in range(len(by_index))) or None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    if isinstance(value, list | tuple) and value:
        return tuple(str(name) for name in value)
    return None

"""How exporters name inputs and outputs."""

from __future__ import annotations

__all__ = ["SELECTED_BOXES", "SELECTED_CLASSES", "SELECTED_SCORES", "plain_name"]

# Outputs of the frontend where an export returns the rows of its suppression only.
SELECTED_BOXES = "selected_boxes"
SELECTED_SCORES = "selected_scores"
SELECTED_CLASSES = "selected_classes"


def plain_name(name: str) -> str:
    """Returns a name without TensorFlow's suffix and scopes, in lower case."""
    return name.split(":")[0].rsplit("/", 1)[-1].lower()

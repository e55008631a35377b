"""How exporters name inputs and outputs."""

from __future__ import annotations

import re

__all__ = ["SELECTED_BOXES", "SELECTED_CLASSES", "SELECTED_SCORES", "plain_name"]

# Outputs of the frontend where an export returns the rows of its suppression only.
SELECTED_BOXES = "selected_boxes"
SELECTED_SCORES = "selected_scores"
SELECTED_CLASSES = "selected_classes"


# super-gradients joins its pre-processing, network and suppression to one file so.
_JOINED = re.compile(r"(graph\d+_)+")


def plain_name(name: str) -> str:
    """Returns a name in lower case, without TensorFlow's suffix and scopes and joined graphs'."""
    plain = name.split(":")[0].rsplit("/", 1)[-1].lower()
    return plain.removeprefix(joined[0]) if (joined := _JOINED.match(plain)) else plain

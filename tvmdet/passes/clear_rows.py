"""What suppressions return where they find nothing: rows of zeros, in TVMScript."""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

from tvm.script import tirx as T

__all__ = ["clear_rows"]


@T.inline
def clear_rows(n, rows, boxes, scores, classes, candidates):
    """Sets the rows of image ``n`` to zero, inside a kernel."""
    for k in T.serial(rows):
        scores[n, k] = T.float32(0)
        classes[n, k] = 0
        candidates[n, k] = 0
        for e in T.serial(4):
            boxes[n, k, e] = T.float32(0)

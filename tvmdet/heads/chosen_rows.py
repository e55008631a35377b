"""Whether anything inside a network chooses rows, so that they are not one for every cell."""

from __future__ import annotations

from tvmdet.heads.base import GraphSummary

__all__ = ["SUPPRESSION", "chooses_rows"]

# The second is what the frontend makes of the first, with a bound on the rows.
SUPPRESSION = ("NonMaxSuppression", "BoundedNonMaxSuppression")
_CHOOSERS = ("NonMaxSuppression", "NMS", "TopK")  # or a part of a plugin's name


def chooses_rows(summary: GraphSummary) -> bool:
    """Returns whether there is a suppression, a plugin of one, or a TopK."""
    return any(
        count and any(part in name for part in _CHOOSERS)
        for name, count in summary.operators.items()
    )

"""Which precision each target of a build computes in."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from tvmdet.arguments import check_kind
from tvmdet.errors import InputError

__all__ = ["PRECISIONS", "precisions_of"]

PRECISIONS = "fp32, bf16, fp16 or tf32"


def precisions_of(precision: str | Mapping[str, str], targets: Sequence[str]) -> tuple[str, ...]:
    """Returns the precision of each target.

    Args:
        precision: One for all, or by the names of targets; those that it does not name compute in
            fp32.
        targets: Their names, as the user gave them.

    Raises:
        InputError: It is neither, or names a target that is not among these.
    """
    if not isinstance(precision, Mapping):
        check_kind(precision, str, "precision", f"{PRECISIONS}, or a mapping of targets to them")
        return (precision,) * len(targets)
    for name, value in precision.items():
        check_kind(value, str, f"precision of {name}", PRECISIONS)
        if name not in targets:
            near = difflib.get_close_matches(str(name), targets, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise InputError(
                f"a precision is given for {name!r}, which is not compiled for; the targets are "
                f"{', '.join(targets)}{meant}"
            )
    return tuple(precision.get(name, "fp32") for name in targets)

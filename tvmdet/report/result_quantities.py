"""Types of the values in a result."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from tvmdet.report.typed_json import AtLeast

__all__ = ["Amount", "Count", "Positive", "Verdict"]

Amount: TypeAlias = Annotated[float, AtLeast(0)]
Count: TypeAlias = Annotated[int, AtLeast(0)]
Positive: TypeAlias = Annotated[int, AtLeast(1)]
Verdict: TypeAlias = Literal["faster", "slower", "undecided"]

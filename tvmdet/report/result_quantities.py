"""Types of the values in a result."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from tvmdet.report.typed_json import Within

__all__ = ["LARGEST", "Amount", "Count", "Duration", "Positive", "Verdict"]

LARGEST: Final = 10**15
"""What no quantity of a benchmark exceeds, whatever its unit; more is damage."""

Amount: TypeAlias = Annotated[float, Within(0, LARGEST)]
Count: TypeAlias = Annotated[int, Within(0, LARGEST)]
Duration: TypeAlias = Annotated[float, Within(0, 10**12)]
"""Of one call, in milliseconds or microseconds: of the latter eleven days."""

Positive: TypeAlias = Annotated[int, Within(1, 10**9)]
Verdict: TypeAlias = Literal["faster", "slower", "undecided"]

"""What ``tvmdet bench --json`` writes: one benchmark, with all that is needed to believe it.

A unit is in every name, and nothing is rounded to less than a tenth of a microsecond. Places for
what was not measured hold null and never a zero. Unknown keys are passed over, so that a file may
say more than its reader knows; what changes its meaning makes another schema number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tvmdet.report.result_kernels import Member, Profile
from tvmdet.report.result_quantities import Positive
from tvmdet.report.result_subject import (
    Accuracy,
    ArtifactFacts,
    Machine,
    ModelFacts,
    PeakFacts,
    Prices,
    Setup,
    TargetFacts,
)
from tvmdet.report.result_tables import ResultTable

__all__ = [
    "FORMAT",
    "Result",
    "SCHEMA",
]

FORMAT: Final = "tvmdet benchmark"
"""What the key ``format`` says in every result."""

SCHEMA: Final = 2
"""The schema that this module describes. Results without the key are of schema 1."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark of one compiled file's code for one target on one machine.

    Attributes:
        format: Always ``tvmdet benchmark``.
        schema: Number of this schema.
        created: When it was done, UTC, ISO 8601; empty in results of schema 1.
        command: What was typed.
        setup: What was asked for; null in results of schema 1, which cannot be repeated.
        artifact: The compiled file.
        model: What it was compiled from.
        target: Whose code ran.
        threads: Of every contestant.
        machine: What it ran on.
        versions: Of what took part, by name.
        peak: What the machine can do at most; null when it was not measured.
        tables: Network and end to end, by batch size.
        layers: Profiles of kernels, when they were asked for.
        members: All targets that the file holds.
        parity: The file's certificate: how the code compares with ONNX Runtime.
        accuracy: On annotated pictures, when it was given.
        prices: When they were given.
        warnings: What makes the figures less trustworthy.
    """

    format: Literal["tvmdet benchmark"]
    schema: Literal[2]
    created: str
    command: tuple[str, ...]
    setup: Setup | None
    artifact: ArtifactFacts
    model: ModelFacts
    target: TargetFacts
    threads: Positive
    machine: Machine
    versions: Mapping[str, str]
    peak: PeakFacts | None
    tables: tuple[ResultTable, ...]
    layers: tuple[Profile, ...] = ()
    members: tuple[Member, ...] = ()
    parity: Mapping[str, Any] | None = None
    accuracy: Accuracy | None = None
    prices: Prices | None = None
    warnings: tuple[str, ...] = ()

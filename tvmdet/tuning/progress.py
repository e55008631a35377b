"""What tuning tells while it runs, and at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TuningProgress", "TuningReport"]

_CANDIDATE_S = 1.5  # to build one and to time it in turn with a rival; YOLOv8n on two cores
_SLICE = 8  # candidates that a task is given at once


@dataclass(frozen=True, kw_only=True)
class TuningProgress:
    """Where a tuning run stands; given to the progress callback after every trial.

    Attributes:
        elapsed_s: Seconds since the run began.
        budget_s: Seconds that it may take.
        trials: Candidates tried in this run, failed ones included.
        tasks_done: Tasks that have nothing left to gain.
        tasks_total: Tasks that have something to tune.
        known: How many tasks earlier runs had measured, as a line for people.
        task: Anchor of the task being measured.
        latency_s: Estimated latency of the tuned kernels of one inference with the best
            decisions known now; ``None`` until each has been measured once.
        latency_start_s: The same as the run found it: best records, else the first candidates.
        eta_s: Seconds until the run ends, at most.
        predicted_cycles: In place of ``latency_s`` where cycles are predicted and nothing measured.
        predicted_cycles_before: In place of ``latency_start_s``.
        predicted_by: Who predicts; empty where kernels are measured.
    """

    elapsed_s: float
    budget_s: float
    trials: int
    tasks_done: int
    tasks_total: int
    known: str
    task: str
    latency_s: float | None
    latency_start_s: float | None
    eta_s: float
    predicted_cycles: float | None = None
    predicted_cycles_before: float | None = None
    predicted_by: str = ""


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """What a tuning run did.

    Attributes:
        target: Name of the target.
        threads: Threads that kernels were measured on.
        tasks: Tasks that have something to tune.
        untunable: Kernels with a single way to be scheduled, which were left out.
        known_before: Tasks that earlier runs had measured.
        trials: Candidates tried in this run, failed ones included.
        new: Tasks that were measured for the first time.
        improved: Tasks for which something faster was found than the run began with.
        failed: Pairs of anchor and reason: no candidate of these works, or tuning them broke.
            The compiler falls back to the default or generic schedule for them.
        latency_before_s: Estimated latency of the tuned kernels of one inference before:
            the sum over tasks of calls times best latency; ``None`` when nothing was measured.
        latency_after_s: The same with the best decisions known now.
        seconds: How long the run took.
        stopped: ``budget``, ``converged`` (nothing promised a worthwhile gain), ``exhausted``
            (every candidate is measured) or ``interrupted``.
        recent_s: Seconds of the last third of the search.
        recent_gain: Share of the latency that these saved: what as much time again may bring at
            most, since gains shrink. ``None`` when not everything was measured by then.
        predicted_cycles: In place of ``latency_after_s`` where cycles were predicted and nothing
            was measured.
        predicted_cycles_before: In place of ``latency_before_s``.
        predicted_by: Who predicted; empty where kernels were measured.
        spent_s: Where the seconds went: ``list`` (what there is to tune), ``schedule``, ``build``,
            ``run``, ``model``.
    """

    target: str
    threads: int
    tasks: int
    untunable: int
    known_before: int
    trials: int
    new: int
    improved: int
    failed: tuple[tuple[str, str], ...]
    latency_before_s: float | None
    latency_after_s: float | None
    seconds: float
    stopped: str
    recent_s: float = 0.0
    recent_gain: float | None = None
    predicted_cycles: float | None = None
    predicted_cycles_before: float | None = None
    predicted_by: str = ""
    spent_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the run."""
        return self.stopped == "interrupted"

    @property
    def too_short(self) -> bool:
        """Whether the budget was spent before anything was tried."""
        return self.stopped == "budget" and not self.trials

    @property
    def least_budget_s(self) -> float:
        """About what it takes to measure each kernel once that no earlier run has measured.

        Where all are known, what a slice of trials for one of them takes.
        """
        return self.spent_s.get("list", 0.0) + _CANDIDATE_S * max(
            self.tasks - self.known_before, _SLICE
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        data = dataclasses.asdict(self)
        data["failed"] = [{"anchor": anchor, "reason": reason} for anchor, reason in self.failed]
        data["interrupted"] = self.interrupted
        return data

"""One trial, measured or predicted, as a line of JSON that a person can read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tvmdet.errors import TuningError
from tvmdet.schedules.base import Decision

__all__ = [
    "FORMAT_VERSION",
    "RETRIED_ERRORS",
    "OtherVersionError",
    "TuningRecord",
    "cost_of",
    "rounded",
    "typical_latency",
]

# 2: measured with cold weights; 1 was measured with everything in the caches, and the two do not
# compare.
FORMAT_VERSION = 2

_PREDICTED_VERSION = 3
"""Of records that hold predicted cycles, so that earlier versions of tvmdet pass over them."""

# What a busy machine or a bad connection may cause; such a candidate is tried once more.
RETRIED_ERRORS = frozenset({"timeout", "killed", "lost"})


def rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Returns four digits of each: beyond what a clock can tell, and logs are kept in git."""
    return tuple(float(f"{float(value):.4g}") for value in values)


def cost_of(latencies_s: Sequence[float], pace: float | None) -> float:
    """Returns what latencies measured at a pace amount to; see :attr:`TuningRecord.cost`."""
    return typical_latency(latencies_s) / (pace or 1.0)


def typical_latency(latencies_s: Sequence[float]) -> float:
    """Returns the lower quartile of some latencies; see :attr:`TuningRecord.score_s`."""
    return sorted(latencies_s)[len(latencies_s) // 4]


class OtherVersionError(TuningError):
    """The line was written by a version of tvmdet whose measurements do not compare."""


@dataclass(frozen=True, kw_only=True)
class TuningRecord:
    """What one decision did for one kernel on one target.

    Attributes:
        target: Name of the target that it was measured for.
        fingerprint: The function, as ``schedules.base.fingerprint`` gives it.
        anchor: The operator and shape without its epilogue, for borrowing and for people.
        decision: The template and its knobs.
        latencies_s: Seconds of one call, one figure per repeat; empty when it failed or was not
            measured.
        pace: How much slower the machine was than when the decision was recorded that this one was
            timed in turn with: the typical latency, over what that one costs times what this one
            took over it. None for one that was timed alone.
        predicted_cycles: Of one call, where it was not measured: see ``tvmdet.board.prediction``.
        error: Why it failed, one line; empty when it ran.
        error_kind: ``schedule``, ``build``, ``run``, ``crash``, ``timeout``, ``killed``,
            or ``wrong`` where it answered otherwise than the default; empty when it ran.
        threads: Threads that it ran on.
        cpu: Model of the processor, as the kernel names it; of a prediction, who made it.
        tvm: Version of TVM that compiled it.
        time: Seconds since the epoch, UTC.
        model: Name of the model that was being tuned.
    """

    target: str
    fingerprint: str
    anchor: str
    decision: Decision
    latencies_s: tuple[float, ...] = ()
    pace: float | None = None
    predicted_cycles: float | None = None
    error: str = ""
    error_kind: str = ""
    threads: int
    cpu: str = ""
    tvm: str = ""
    time: float = 0.0
    model: str = ""

    @property
    def ok(self) -> bool:
        """Whether the candidate ran, on the hardware or under emulation."""
        return not self.error and (bool(self.latencies_s) or self.predicted)

    @property
    def predicted(self) -> bool:
        """Whether it was never measured, and its cycles were predicted."""
        return self.predicted_cycles is not None

    @property
    def cost(self) -> float:
        """What records of one kind are compared by: seconds, or cycles of a prediction.

        Seconds are those of the moment in which the first of its layer was timed: a machine's
        speed changes within seconds by more than decisions differ.
        """
        if self.predicted_cycles is not None and not self.error:
            return self.predicted_cycles
        return cost_of(self.latencies_s, self.pace) if self._measured else float("inf")

    @property
    def score_s(self) -> float:
        """The typical latency of one call in seconds; infinite when it was not measured.

        The lower quartile: other programs on the machine only ever add time, and double the
        median long before they reach the fastest quarter, while the minimum alone flatters a
        kernel whose speed varies by itself.
        """
        return typical_latency(self.latencies_s) if self._measured else float("inf")

    @property
    def median_s(self) -> float:
        """Median latency of one call in seconds; infinite when it was not measured."""
        return statistics.median(self.latencies_s) if self._measured else float("inf")

    @property
    def min_s(self) -> float:
        """Shortest latency of one call in seconds; infinite when it was not measured."""
        return min(self.latencies_s) if self._measured else float("inf")

    @property
    def _measured(self) -> bool:
        return self.ok and not self.predicted

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values; :meth:`from_dict` reads them back."""
        data: dict[str, Any] = {
            "version": _PREDICTED_VERSION if self.predicted else FORMAT_VERSION,
            "target": self.target,
            "fingerprint": self.fingerprint,
            "anchor": self.anchor,
            "decision": self.decision.to_dict(),
            "threads": self.threads,
            "cpu": self.cpu,
            "tvm": self.tvm,
            "time": round(self.time, 3),
            "model": self.model,
        }
        if self.error:
            data |= {"error": self.error, "error_kind": self.error_kind}
        elif self.predicted:
            data["predicted_cycles"] = self.predicted_cycles
        else:
            data["latencies_s"] = list(self.latencies_s)
            if self.pace is not None:
                data["pace"] = self.pace
        return data

    def to_line(self) -> bytes:
        """Returns the record as one line of JSON, newline included."""
        return json.dumps(self.to_dict(), separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TuningRecord:
        """Builds a record from what :meth:`to_dict` wrote.

        Raises:
            OtherVersionError: The record is of an earlier or a later format.
            KeyError, TypeError, ValueError: A field is missing or of the wrong type.
        """
        version = int(data["version"])
        if version not in (FORMAT_VERSION, _PREDICTED_VERSION):
            raise OtherVersionError(f"tuning record of version {version}; known: {FORMAT_VERSION}")
        predicted = float(data["predicted_cycles"]) if version == _PREDICTED_VERSION else None
        if predicted is not None and not 0.0 < predicted < 1e18:
            raise ValueError(f"predicted_cycles is {predicted}")
        latencies = tuple(float(value) for value in data.get("latencies_s", ()))
        pace = None if data.get("pace") is None else float(data["pace"])
        if pace is not None and not 0.0 < pace < 1e6:
            raise ValueError(f"pace is {pace}")
        error = str(data.get("error", ""))
        timed = latencies and all(0.0 < t < 1e6 for t in latencies)
        if not (error or timed or predicted):
            raise ValueError(f"latencies_s is {list(latencies)} and there is no error")
        return cls(
            target=str(data["target"]),
            fingerprint=str(data["fingerprint"]),
            anchor=str(data["anchor"]),
            decision=_decision(data["decision"]),
            latencies_s=latencies,
            pace=pace,
            predicted_cycles=predicted,
            error=error,
            error_kind=str(data.get("error_kind", "")),
            threads=int(data["threads"]),
            cpu=str(data.get("cpu", "")),
            tvm=str(data.get("tvm", "")),
            time=float(data.get("time", 0.0)),
            model=str(data.get("model", "")),
        )

    @classmethod
    def from_line(cls, line: bytes) -> TuningRecord:
        """Reads one line of a log.

        Raises:
            OtherVersionError: The record is of an earlier or a later format.
            ValueError: The line is not a record.
        """
        try:
            return cls.from_dict(json.loads(line))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _decision(data: Any) -> Decision:
    decision = Decision.from_dict(data)
    for knob, value in decision.knobs:
        if not isinstance(value, int | str):
            raise TypeError(f"knob {knob} is {value!r}; an integer or a string is needed")
    return decision

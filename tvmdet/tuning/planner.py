"""Which task to spend the next slice on: the one whose expected gain is largest."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tvmdet.cpus import cpuinfo
from tvmdet.passes.conv_algorithms import ALGORITHMS
from tvmdet.passes.fuse_pairs import pair_anchor, split_pair
from tvmdet.schedules.base import Decision
from tvmdet.targets import Target
from tvmdet.tuning.task import Task

__all__ = [
    "TaskState",
    "close_races",
    "peak_flop_per_s",
    "related_layers",
    "total_latency",
    "worth_tuning",
]

# A slice finds about this share of the distance to the roofline while a task is fresh, ...
_HOPE = 0.3
# ... half as much after each slice that found nothing worth having, ...
_WORTH = 0.005
# ... and no kernel is taken to be closer to its optimum than this (the roofline is a guess).
_FLOOR = 0.05
# For kernels whose operations say nothing, such as copies and reductions.
_UNKNOWN = 0.3
_DEFAULT_HZ = 3.0e9
# A kernel that is so many times slower than its rival will not catch up by tuning.
_HOPELESS = 1.4
# What a busy moment may have cost a measurement, times the fastest, ...
_CLOSE = 1.1
# ... and how many decisions of a layer are worth being measured again.
_LEADERS = 4
# Tasks that no candidate of the first few works for are given up.
_GIVE_UP = 12


@dataclass(kw_only=True, eq=False)
class TaskState:
    """How far one task is.

    Attributes:
        task: What is tuned.
        roofline_s: Seconds that one call takes at the target's peak rate, 0 if unknown.
        best_s: Least cost known (:attr:`TuningRecord.cost`), ``None`` before the first success.
        start_s: That of earlier runs, else of the first candidate, which is what other processors'
            records or the template propose.
        tried: Candidates tried, earlier runs included.
        known: Whether an earlier run measured it.
        remaining: Decisions not tried yet.
        stale: Slices since the last improvement.
        gain: Share of the latency that the last improvement saved.
        error: The last failure, one line.
        failed: Why the task is given up, or empty.
    """

    task: Task
    roofline_s: float
    best_s: float | None = None
    start_s: float | None = None
    tried: int = 0
    known: bool = False
    remaining: int = 0
    stale: int = 0
    gain: float = 0.0
    error: str = ""
    failed: str = ""

    def record(self, cost_s: float) -> None:
        """Takes the cost of one candidate."""
        if self.start_s is None:
            self.start_s = cost_s
        if self.best_s is None or cost_s < self.best_s:
            self.best_s = cost_s

    def give_up(self, reason: str) -> None:
        """Leaves the task as it is: what was measured stays, nothing more is tried."""
        self.failed, self.remaining = reason, 0

    def end_slice(self, before_s: float | None) -> None:
        """Judges a slice that began with ``before_s`` as the best latency."""
        if self.failed:
            return
        if self.best_s is None:
            if self.tried >= min(_GIVE_UP, len(self.task.decisions)) or not self.remaining:
                self.failed = self.error or "no candidate could be measured"
            return
        if before_s is None:
            return
        self.gain = 1.0 - self.best_s / before_s
        self.stale = 0 if self.gain > _WORTH else self.stale + 1

    @property
    def expected_gain_s(self) -> float:
        """Seconds per inference that the next slice may save."""
        if self.failed or not self.remaining:
            return 0.0
        if self.best_s is None:
            return float("inf")
        room = max(1.0 - self.roofline_s / self.best_s, _FLOOR) if self.roofline_s else _UNKNOWN
        share = max(_HOPE * room, self.gain / 2) * 0.5**self.stale
        gain: float = self.task.count * self.best_s * share
        return gain


def worth_tuning(states: Iterable[TaskState], min_gain: float) -> list[TaskState]:
    """Returns the tasks whose next slice promises enough, the most promising first.

    A kernel that is far behind its rival, the same layer by another algorithm, is left alone.

    Args:
        states: Every task.
        min_gain: Share of the estimated latency of the model that is worth a slice.
    """
    states = list(states)
    total = total_latency((s, s.best_s) for s in states if s.best_s is not None) or 0.0
    fastest = _fastest((s, s.best_s) for s in states)

    def beaten(state: TaskState) -> bool:
        if state.best_s is None:
            return False
        layer, algorithm = _layer(state.task)
        others = [best for name, best in fastest[layer].items() if name != algorithm]
        apart = _apart(state.task, fastest)
        if apart is not None:
            others.append(apart)
        return state.best_s > _HOPELESS * min(others, default=state.best_s)

    worth = [s for s in states if s.expected_gain_s > min_gain * total and not beaten(s)]
    return sorted(worth, key=lambda s: -s.expected_gain_s)


def close_races(
    states: Iterable[TaskState], decisions_of: Callable[[TaskState], Mapping[Decision, float]]
) -> list[list[tuple[TaskState, Decision]]]:
    """Returns the layers whose fastest decisions are too close to be sure of, and those decisions.

    Of many measurements the least is partly luck. The leaders of a layer, of all its algorithms,
    are worth being measured again, for longer. The layers that take the most time come first.

    Args:
        states: Every task.
        decisions_of: The decisions that a task was measured with, and their seconds.
    """
    layers: dict[str, list[tuple[float, TaskState, Decision]]] = {}
    shares: dict[str, float] = {}
    for state in states:
        if state.failed or state.best_s is None:
            continue
        layer, _ = _layer(state.task)
        shares[layer] = max(shares.get(layer, 0.0), state.task.count * state.best_s)
        for decision, seconds in decisions_of(state).items():
            layers.setdefault(layer, []).append((seconds, state, decision))
    races = []
    for layer in sorted(layers, key=lambda layer: -shares[layer]):
        entries = sorted(layers[layer], key=lambda entry: entry[0])
        close = [entry for entry in entries if entry[0] < _CLOSE * entries[0][0]][:_LEADERS]
        if len(close) > 1:
            races.append([(state, decision) for _, state, decision in close])
    return races


def total_latency(pairs: Iterable[tuple[TaskState, float | None]]) -> float | None:
    """Returns the sum of calls times latency, or ``None`` while one is not measured.

    Tasks that were given up without a single success do not count; of a layer that several
    algorithms can compute, the fastest counts. Two convolutions that one kernel can compute count
    as that kernel where it is faster than both.
    """
    listed = list(pairs)
    layers: dict[str, dict[str, float]] = {}
    joined: list[tuple[Task, float]] = []
    for state, latency in listed:
        if latency is None:
            if state.failed:
                continue
            return None
        if split_pair(state.task.anchor) is not None:
            joined.append((state.task, latency))
            continue
        layer, algorithm = _layer(state.task)
        times_of = layers.setdefault(layer, {})
        times_of[algorithm] = times_of.get(algorithm, 0.0) + state.task.count * latency
    if not layers:
        return None
    fastest = _fastest(listed)
    saved: dict[str, float] = {}
    for task, latency in joined:
        apart = _apart(task, fastest)
        if apart is not None and apart > latency:
            layer, _ = _layer(task)
            saved[layer] = max(saved.get(layer, 0.0), task.count * (apart - latency))
    return sum(min(times.values()) for times in layers.values()) - sum(saved.values())


def _fastest(pairs: Iterable[tuple[TaskState, float | None]]) -> dict[str, dict[str, float]]:
    """Returns the seconds of one call of each layer, by algorithm."""
    fastest: dict[str, dict[str, float]] = {}
    for state, latency in pairs:
        if latency is not None:
            layer, algorithm = _layer(state.task)
            times = fastest.setdefault(layer, {})
            times[algorithm] = min(times.get(algorithm, latency), latency)
    return fastest


def _apart(task: Task, fastest: Mapping[str, Mapping[str, float]]) -> float | None:
    """Returns the seconds of the two kernels that a pair's task replaces, if both are known."""
    anchors = split_pair(task.anchor)
    if anchors is None:
        return None
    times = [min(fastest.get(_plain(anchor)[0], {}).values(), default=None) for anchor in anchors]
    first, second = times
    return None if first is None or second is None else first + second


def _layer(task: Task) -> tuple[str, str]:
    """Returns what a task computes, whichever algorithm does it, and the algorithm."""
    anchors = split_pair(task.anchor)
    layer, algorithm = _plain(anchors[1] if anchors else task.anchor)
    if anchors:
        layer = pair_anchor(anchors[0], layer)
    return layer, algorithm or task.template.name


def related_layers(task: Task) -> frozenset[str]:
    """Returns the layers that a task computes: one, or for a pair of convolutions both."""
    anchors = split_pair(task.anchor) or (task.anchor,)
    return frozenset(_plain(anchor)[0] for anchor in anchors)


def _plain(anchor: str) -> tuple[str, str]:
    """Returns the anchor of the direct convolution, and the algorithm that it was taken from."""
    for name, prefix in ALGORITHMS.items():
        if prefix and anchor.startswith(prefix):
            return anchor.removeprefix(prefix), name
    return anchor, ""


def peak_flop_per_s(target: Target, threads: int) -> float:
    """Returns the float32 rate that so many cores of a target can reach at best."""
    here = target.arch == platform.machine()
    clock_hz = _clock_hz() if here else target.clock_hz or _DEFAULT_HZ
    return target.flop_per_cycle_f32 * threads * clock_hz


def _clock_hz() -> float:
    with contextlib.suppress(OSError, ValueError):
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
        return int(path.read_text(encoding="ascii")) * 1e3
    clocks = [float(value) * 1e6 for key, value in cpuinfo() if key == "cpu MHz"]
    return max(clocks, default=_DEFAULT_HZ) or _DEFAULT_HZ

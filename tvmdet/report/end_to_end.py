"""From the image file to the boxes: tvmdet against the same pictures around every rival's network.

tvmdet runs as its users run it. A rival's pre- and post-processing is
:class:`tvmdet.report.pipeline.Pipeline` in this process and its network is in its own, timed there:
what it takes to hand arrays from process to process is not counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from tvmdet.boxes import iou_matrix
from tvmdet.counted import counted
from tvmdet.report.agreement import Agreement
from tvmdet.report.answers import sample_found
from tvmdet.report.contest import AGAIN, OURS, Contest, one_line, ranked
from tvmdet.report.environments import environment_variables
from tvmdet.report.load import LoadWatch
from tvmdet.report.pipeline import Found, Pipeline
from tvmdet.report.results import Entry, Table
from tvmdet.report.timing import Plan, time_in_turn
from tvmdet.report.tolerances import tolerances_at
from tvmdet.report.worker import Worker, WorkerError
from tvmdet.spec import DetectorSpec

__all__ = ["compare_found", "end_to_end_table"]

_SERVED = Path(__file__).with_name("serve_detector.py")
_SAME_PLACE_PX = 0.5


class _Phases:
    """A contestant whose calls have phases; see :class:`tvmdet.report.timing.Contestant`."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.phases: list[dict[str, float]] = []

    def wait_until_asleep(self, *, at_least_s: float, at_most_s: float) -> bool:
        return self._worker.wait_until_asleep(at_least_s=at_least_s, at_most_s=at_most_s)

    @property
    def pid(self) -> int:
        return self._worker.pid

    def memory_peak_bytes(self) -> int | None:
        return self._worker.memory_peak_bytes()


class _Ours(_Phases):
    def __init__(self, worker: Worker, picture: str) -> None:
        super().__init__(worker)
        self._picture = picture

    def found(self) -> Found:
        answer = self._worker.call("detect", picture=self._picture, untimed=0)
        return Found(
            boxes_xyxy=np.asarray(answer["boxes_xyxy"], np.float32).reshape(-1, 4),
            scores=np.asarray(answer["scores"], np.float32),
            class_ids=np.asarray(answer["class_ids"], np.int64),
        )

    def time(self, *, untimed: int = 1) -> float:
        answer = self._worker.call("detect", picture=self._picture, untimed=untimed)
        self.phases.append(answer["stages"])
        return float(answer["seconds"])


class _Theirs(_Phases):
    def __init__(self, worker: Worker, pipeline: Pipeline, picture: str, name: str) -> None:
        super().__init__(worker)
        self._pipeline = pipeline
        self._picture = picture
        blob, self._transform, _ = pipeline.prepare(picture)
        worker.feed({name: blob})
        self._outputs = worker.run()

    def found(self) -> Found:
        return self._pipeline.finish(self._outputs, self._transform)[0]

    def time(self, *, untimed: int = 1) -> float:
        for _ in range(untimed):
            self._pipeline.prepare(self._picture)
            self.found()
        _, _, before = self._pipeline.prepare(self._picture)
        network = self._worker.time(untimed=untimed)
        _, after = self._pipeline.finish(self._outputs, self._transform)
        phases = {**before, "network": network, **after}
        self.phases.append(phases)
        # Not by one clock from start to end: it would count the hand-over between the processes.
        return sum(phases.values())


def end_to_end_table(
    artifact: Path,
    target: str,
    spec: DetectorSpec,
    contest: Contest | None,
    picture: Path,
    plan: Plan,
    *,
    threads: int,
    precision: str,
    progress: Callable[[int, float], None],
) -> Table:
    """Times a detector from the image file to the boxes, one image a call.

    Args:
        artifact: The compiled detector.
        target: Whose code to run.
        spec: What is around the network.
        contest: Rivals with the network of batch 1 loaded; None for tvmdet alone.
        picture: The image file.
        plan: How long.
        threads: Of every contestant.
        precision: That tvmdet's file was compiled in.
        progress: As :func:`tvmdet.report.timing.time_in_turn` takes it.

    Raises:
        WorkerError: tvmdet itself fails.
    """
    with ExitStack() as stack:
        copies = [stack.enter_context(_start(threads)) for _ in range(2)]
        sides: dict[str, _Ours | _Theirs] = {}
        entries: dict[str, Entry] = {}
        for name, worker in zip((OURS, AGAIN), copies, strict=True):
            version = worker.call("open", artifact=str(artifact), target=target, threads=threads)
            sides[name] = _Ours(worker, str(picture))
            entries[name] = Entry(name=name, precision=precision, version=version)
        right = sides[OURS].found()
        for name, entry in _rivals(contest).items():
            assert contest is not None
            entries[name] = entry
            if name not in contest.workers:
                continue  # its problem is that with the network
            given = contest.network.signature["inputs"][0]
            pipeline = Pipeline(spec, given["dtype"])
            try:
                theirs = _Theirs(contest.workers[name], pipeline, str(picture), given["name"])
            except WorkerError as error:
                entries[name] = replace(entry, problem=f"failed: {one_line(error)}")
                continue
            # The coarser of the two decides what can be asked for.
            tolerance = tolerances_at(entry.precision, precision).overlap
            found = compare_found(theirs.found(), right, tolerance)
            entries[name] = replace(entry, agreement=found, problem=found.reason)
            if found.ok:
                sides[name] = theirs
        watch = LoadWatch(side.pid for side in sides.values())
        timings = time_in_turn(sides, plan, progress, watch.sample)
        load = watch.read()
        memory = {name: side.memory_peak_bytes() for name, side in sides.items()}
    found_entries, noise = ranked(entries, timings, memory)
    found_entries = tuple(
        replace(entry, stages_s=_by_stage(sides[entry.name].phases[-len(entry.seconds) :]))
        if entry.seconds
        else entry
        for entry in found_entries
    )
    masks = "" if spec.masks is None else "; masks as small as the network has them"
    return Table(
        what="end to end",
        batch_size=1,
        entries=found_entries,
        load=load,
        noise=noise,
        restless=tuple(sorted(timings.restless)),
        answers=sample_found(right),
        note=f"{picture.name}: {counted(len(right.scores), 'box', 'boxes')}{masks}. Rivals with "
        "the numpy pre- and post-processing of tvmdet.report.pipeline",
    )


def compare_found(got: Found, right: Found, tolerance: float) -> Agreement:
    """Compares boxes: each of one side needs a partner of its class on the other.

    Args:
        got: A contestant's boxes.
        right: The right ones.
        tolerance: How far the IoU of partners may be from 1.
    """
    if len(got.scores) != len(right.scores):
        reason = f"wrong: {counted(len(got.scores), 'box', 'boxes')} instead of {len(right.scores)}"
        return Agreement(worst=float("inf"), output="boxes", tolerance=tolerance, reason=reason)
    if not len(right.scores):
        return Agreement(worst=0.0, output="boxes", tolerance=tolerance)
    overlaps = iou_matrix(got.boxes_xyxy, right.boxes_xyxy)
    # Boxes cut to a line at the picture's edge have no area to share, but a place.
    apart = np.abs(got.boxes_xyxy[:, None] - right.boxes_xyxy[None, :]).max(axis=-1)
    overlaps[apart < _SAME_PLACE_PX] = 1.0
    overlaps *= got.class_ids[:, None] == right.class_ids[None, :]
    worst = 1.0 - float(min(overlaps.max(axis=0).min(), overlaps.max(axis=1).min()))
    reason = "" if worst <= tolerance else f"wrong: a box has no partner of IoU {1 - tolerance:g}"
    return Agreement(worst=worst, output="boxes", tolerance=tolerance, reason=reason)


def _rivals(contest: Contest | None) -> Mapping[str, Entry]:
    """Returns what is known of each rival, those that failed included."""
    if contest is None:
        return {}
    return {
        name: replace(entry, flop=None, agreement=None)
        for name, entry in contest.entries.items()
        if name not in (OURS, AGAIN)
    }


def _start(threads: int) -> Worker:
    python = Path(sys.executable)
    return Worker(python, _SERVED, threads=threads, environment=environment_variables(python))


def _by_stage(phases: list[dict[str, float]]) -> dict[str, list[float]]:
    """Returns the seconds of each stage, call by call."""
    return {name: [each[name] for each in phases] for name in phases[0]}

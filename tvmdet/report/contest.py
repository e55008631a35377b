"""The contestants of one batch size: started, loaded and checked before anything is timed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tvmdet.report.agreement import SPARED_SHARE, Agreement, compare_outputs
from tvmdet.report.answers import sample_outputs
from tvmdet.report.environments import environment_variables, find_python
from tvmdet.report.network import Network, make_inputs
from tvmdet.report.results import Entry, Noise
from tvmdet.report.rivals import RIVALS, TVMDET, Rival
from tvmdet.report.statistics import compare, noise_between, summarise
from tvmdet.report.timing import Timings
from tvmdet.report.tolerances import tolerances_at
from tvmdet.report.worker import Arrays, Worker, WorkerError

__all__ = ["AGAIN", "OURS", "Contest", "Side", "judge", "one_line", "ranked", "right_outputs"]

OURS = "tvmdet"
AGAIN = "tvmdet again"
"""The second copy of tvmdet in every table; what it differs by from the first one is noise."""

_LONGEST_PROBLEM = 200
_REFERENCE = next(rival for rival in RIVALS if rival.name == "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Side:
    """A rival in one precision, and the interpreter that has it."""

    rival: Rival
    precision: str
    python: Path

    @property
    def name(self) -> str:
        """As results name it."""
        # tvmdet has one precision, which its file was compiled in.
        plain = self.precision == "fp32" or self.rival is TVMDET
        return self.rival.name if plain else f"{self.rival.name} {self.precision}"


class Contest:
    """Contestants with a network loaded, each asleep in its process.

    Attributes:
        entries: What is known of each, by name, tvmdet first.
        workers: Those that gave right answers.
        answers: Samples of what tvmdet answered.
    """

    def __init__(
        self,
        network: Network,
        compiled: Path,
        threads: int,
        precision: str,
        tolerance: float | None = None,
        target: str | None = None,
    ) -> None:
        """Takes the network.

        Args:
            network: As rivals are given it.
            compiled: As tvmdet is: without a head.
            threads: Of every contestant.
            precision: That tvmdet's file was compiled in.
            tolerance: Greatest error, as a share of an output's greatest value; None for what
                is usual in each precision.
            target: Whose code in ``compiled`` to run; None for its only one.
        """
        self.network = network
        self.entries: dict[str, Entry] = {}
        self.workers: dict[str, Worker] = {}
        self.answers: Mapping[str, Sequence[float]] = {}
        self._compiled = compiled
        self._threads = threads
        self._precision = precision
        self._tolerance = tolerance
        self._target = target
        self._inputs = make_inputs(network.signature)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends every process."""
        self._stack.close()

    def open(self, sides: Sequence[Side], say: Callable[[str], None]) -> None:
        """Loads every contestant, and compares its outputs with those of ONNX Runtime."""
        ours = Side(rival=TVMDET, precision=self._precision, python=Path(sys.executable))
        reference = right_outputs(self.network, self._inputs, self._threads, say)
        named = {OURS: ours, AGAIN: ours, **{side.name: side for side in sides}}
        for name, side in named.items():
            say(f"loading {name}")
            self.entries[name] = self._open(name, side, reference)

    def memory(self) -> dict[str, int | None]:
        """Returns the most memory that each contestant's process had resident so far."""
        return {name: worker.memory_peak_bytes() for name, worker in self.workers.items()}

    def feed(self, inputs: Arrays | None = None) -> None:
        """Gives all contestants other inputs, or the first ones again."""
        for worker in self.workers.values():
            worker.feed(self._inputs if inputs is None else inputs)

    def _load(self, worker: Worker, side: Side) -> dict[str, Any]:
        model = self.network.onnx_row if side.rival.one_row else self.network.onnx
        model = self._compiled if side.rival is TVMDET else model
        if model is None:
            raise WorkerError("it runs one row at a time, and the export fixes a larger batch")
        options = {
            "threads": self._threads,
            "precision": side.precision,
            "mode": side.rival.mode,
        }
        if side.rival is TVMDET:
            options["target"] = self._target
        return worker.load(model, self.network.signature, options)

    def _open(self, name: str, side: Side, reference: Arrays | None) -> Entry:
        entry = Entry(name=name, precision=side.precision, flop=self.network.flop)
        if not side.rival.computes_in(side.precision):
            return replace(entry, problem=f"does not compute in {side.precision} on a CPU")
        worker = self._stack.enter_context(_start(side, self._threads))
        try:
            loaded = self._load(worker, side)
            entry = replace(entry, version=loaded["version"], settings=loaded["settings"])
            worker.feed(self._inputs)
            outputs = worker.run()
        except WorkerError as error:
            worker.close()
            return replace(entry, problem=f"failed: {one_line(error)}")
        if name == OURS:
            self.answers = sample_outputs(outputs)
        if reference is not None:
            found = judge(outputs, reference, self.network, side.precision, self._tolerance)
            entry = replace(entry, agreement=found)
            if not found.ok:
                worker.close()
                return replace(entry, problem=f"wrong: {found}")
        self.workers[name] = worker
        return entry


def _start(side: Side, threads: int) -> Worker:
    environment = environment_variables(side.python)
    return Worker(side.python, side.rival.file, threads=threads, environment=environment)


def right_outputs(
    network: Network, inputs: Arrays, threads: int, say: Callable[[str], None]
) -> Arrays | None:
    """Returns what ONNX Runtime answers on this machine; None where there is no ONNX file.

    Raises:
        WorkerError: It cannot load or run the file.
    """
    if network.onnx is None:
        return None
    say("computing what is right with ONNX Runtime")
    side = Side(rival=_REFERENCE, precision="fp32", python=find_python(_REFERENCE))
    options = {"threads": threads, "precision": side.precision, "mode": side.rival.mode}
    with _start(side, threads) as worker:
        worker.load(network.onnx, network.signature, options)
        worker.feed(inputs)
        return worker.run()


def judge(
    outputs: Arrays, right: Arrays, network: Network, precision: str, tolerance: float | None
) -> Agreement:
    """Compares a contestant's outputs with the right ones.

    Args:
        outputs: By name.
        right: The right ones.
        network: What both computed.
        precision: Of the contestant.
        tolerance: Greatest error, as a share of an output's greatest value; None for what is
            usual in that precision.
    """
    spared = SPARED_SHARE if network.selects else 0.0
    allowed = tolerances_at(precision).outputs if tolerance is None else tolerance
    return compare_outputs(outputs, right, allowed, spared)


def one_line(problem: object) -> str:
    """Returns the first lines of a runtime's complaint as one line of bearable length."""
    text = " ".join(str(problem).split())
    return text if len(text) <= _LONGEST_PROBLEM else f"{text[:_LONGEST_PROBLEM]} ..."


def ranked(
    entries: Mapping[str, Entry], timings: Timings, memory: Mapping[str, int | None]
) -> tuple[tuple[Entry, ...], Noise | None]:
    """Returns the entries with their timings, how tvmdet relates to each, and the noise.

    Args:
        entries: By name, with the second copy of tvmdet among them.
        timings: Of those that were timed.
        memory: Most bytes that each process had resident.
    """
    ours, again = timings.seconds.get(OURS), timings.seconds.get(AGAIN)
    floor = noise_between(again, ours) if ours and again else None
    done = []
    for name, entry in entries.items():
        if name == AGAIN:
            continue
        if name in timings.failed:
            done.append(replace(entry, problem=f"failed: {one_line(timings.failed[name])}"))
            continue
        seconds = timings.seconds.get(name)
        if not seconds:
            done.append(entry)
            continue
        other = name != OURS and ours
        done.append(
            replace(
                entry,
                seconds=tuple(seconds),
                warm_up_s=tuple(timings.warm_up.get(name, ())),
                memory_peak_bytes=memory.get(name),
                summary=summarise(seconds),
                comparison=compare(ours, seconds, noise=floor) if other and ours else None,
            )
        )
    if floor is None or ours is None or again is None:
        return tuple(done), None
    # The floor of any comparison in this table is that of the A/A comparison itself.
    bound = compare(again, ours, noise=floor).noise_floor
    return tuple(done), Noise(seconds=tuple(again), comparison=compare(again, ours), floor=bound)

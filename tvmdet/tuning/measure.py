"""Builds and times candidates in worker processes that live for the whole run.

MetaSchedule's own local builder and runner import every tensor intrinsic of every target in
each worker (28 s) and link through the compiler driver. This one compiles with a bare
``tvm.tirx.build``, links with ``ld``, and keeps the machine quiet while it times: candidates of
a round are built side by side first, then run one at a time, each in turn with the fastest that is
known. Speeds of machines change by a half within seconds, and what was measured a minute ago does
not compare.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import tvm
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvmdet.board.linker import find_linker
from tvmdet.board.session import BoardAddress, use_lease
from tvmdet.cpus import usable_cpu_count
from tvmdet.errors import TargetError
from tvmdet.passes.lower import CODE_OPTIONS
from tvmdet.targets import Target
from tvmdet.tuning.pool import WorkerPool
from tvmdet.tuning.record import cost_of, rounded, typical_latency

__all__ = ["Built", "Failure", "MeasureOptions", "Measured", "Measurer", "Rival"]

_BOARD_CHECK_S = 5.0
_BOARD_RETRY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How candidates are built and timed.

    Attributes:
        measure_s: Seconds of timed calls per candidate, and of as many calls of its rival.
        abort_factor: A candidate whose first calls take this many times the best known is
            timed no further.
        build_timeout_s: Seconds after which a build is given up.
        run_timeout_s: Seconds after which a run is given up.
        builders: Builds side by side; ``None`` for as many as there are CPUs, 8 at most.
        confirm_share: Share of the budget that is kept for measuring the leaders again.
    """

    measure_s: float = 0.03
    abort_factor: float = 3.0
    build_timeout_s: float = 30.0
    run_timeout_s: float = 10.0
    builders: int | None = None
    confirm_share: float = 0.15


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a candidate could not be built or run.

    Attributes:
        kind: As :attr:`TuningRecord.error_kind`, or ``stopped`` (the run ended), ``start`` (no
            worker can be started), ``board`` (nobody answers there) or ``setup`` (a board that
            answers and cannot run kernels).
        message: One line.
    """

    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Built:
    """A candidate's library.

    Attributes:
        path: Of the shared library.
        args: Of its function ``main``.
    """

    path: Path
    args: Sequence[ArgInfo]


@dataclass(frozen=True, kw_only=True)
class Rival:
    """What a candidate is timed in turn with.

    Attributes:
        built: Its library.
        cost_s: What it is recorded to take, in seconds.
    """

    built: Built
    cost_s: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one candidate took.

    Attributes:
        latencies_s: Seconds of one call, one figure per repeat.
        pace: How slow the machine was, over when its rival was recorded: what makes the cost that
            of the rival times what this one took over it. None without a rival.
    """

    latencies_s: tuple[float, ...]
    pace: float | None = None

    @property
    def cost_s(self) -> float:
        """What a record of it will cost, in seconds."""
        return cost_of(self.latencies_s, self.pace)


@dataclass(kw_only=True)
class Measurer:
    """Builds and runs candidates; owns the workers, the temporary folder and the stopwatch.

    Use as a context manager.

    Attributes:
        repeats: Whether a second run gives the same, so that nothing needs a rival.
        target: What candidates are compiled for; this machine, or the board, must be able to
            run it.
        threads: Threads that kernels run on.
        options: How they are timed.
        stop: Asked while waiting; once true, what is unfinished fails as ``stopped``.
        board: Where candidates run; None for this machine.
        give_up: Asked while a board that is gone is waited for; once true, it is not any more.
    """

    repeats: ClassVar[bool] = False

    target: Target
    threads: int
    options: MeasureOptions = field(default_factory=MeasureOptions)
    stop: Callable[[], bool] = lambda: False
    board: BoardAddress | None = None
    give_up: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        """Makes the pools; processes start with the context."""
        size = self.options.builders or min(usable_cpu_count(), 8)
        self._builders = WorkerPool(size, threads=1, stop=self.stop)
        self._runners = WorkerPool(1, threads=self.threads, stop=self.stop)
        self._cleanup = contextlib.ExitStack()
        self._count = 0
        tracked = self.board is not None and self.board.tracked
        self._server: BoardAddress | None = None if tracked else self.board
        self._linker = [*find_linker(self.target.arch)]

    def __enter__(self) -> Self:
        """Starts the workers, which load while tasks are prepared."""
        folder = self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="tvmdet-tune-"))
        self._folder = Path(folder)
        self._cleanup.enter_context(self._builders)
        self._builders.start()
        self._start_runners()
        return self

    def _start_runners(self) -> None:
        self._cleanup.enter_context(self._runners)
        self._runners.start()

    def __exit__(self, *exc: object) -> None:
        """Ends the workers and removes what they built."""
        self._cleanup.close()

    @property
    def parallel(self) -> int:
        """Builds done side by side."""
        return self._builders.size

    def build(self, inputs: Sequence[MeasureCandidate]) -> list[Built | Failure]:
        """Builds candidates side by side."""
        requests: list[dict[str, Any]] = []
        same_in_all = {
            "op": "build",
            "target": _target_dict(self.target, self.threads),
            "code_options": dict(CODE_OPTIONS),
            "package": str(Path(__file__).parents[1]),
            "linker": self._linker,
        }
        for item in inputs:
            self._count += 1
            path = str(self._folder / f"k{self._count}.so")
            module = tvm.ir.save_json(item.sch.mod)
            requests.append({**same_in_all, "module": module, "path": path})
        answers = self._builders.map(requests, self.options.build_timeout_s)
        return [
            _failure(answer, "build")
            if "error" in answer
            else Built(path=Path(request["path"]), args=item.args_info)
            for item, request, answer in zip(inputs, requests, answers, strict=True)
        ]

    def run(
        self,
        built: Built,
        *,
        best_s: float | None = None,
        rival: Rival | None = None,
        longer: float = 1.0,
    ) -> Measured | Failure:
        """Times one built candidate.

        Args:
            built: The candidate.
            best_s: Cost of the fastest of its task: one that takes much longer is timed no further.
            rival: What to time in turn with it.
            longer: Times the usual number of calls.
        """
        request = {
            "op": "run",
            "kernels": [_kernel(built), *([] if rival is None else [_kernel(rival.built)])],
            "beside_s": None if rival is None else rival.cost_s,
            "threads": self.threads,
            "measure_s": self.options.measure_s * longer,
            "abort_above_s": None if best_s is None else best_s * self.options.abort_factor,
            "board": None,
        }
        answer = self._answer(request)
        if "error" in answer:
            return _failure(answer, "run")
        latencies, pace = answer["latencies_s"][0], None
        if rival is not None:
            (pace,) = rounded([typical_latency(latencies) / (rival.cost_s * answer["over"][0])])
        return Measured(latencies_s=rounded(latencies), pace=pace)

    def discard(self, built: Built) -> None:
        """Deletes a library that will not be run again."""
        built.path.unlink(missing_ok=True)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Asks the runner, and once more when the board was gone, after it is back.

        An error of kind ``board`` says that it is still gone; ``setup``, that it answers and yet
        cannot be used.
        """
        answer: dict[str, Any] = {"error": "no board is there", "error_kind": "board"}
        gone = False
        for _ in range(2):
            if self.board is not None:
                if self._server is None:
                    gone = self._wait_for(self.board)
                if self._server is None:
                    return answer
                request = {**request, "board": asdict(self._server)}
            (answer,) = self._runners.map([request], self.options.run_timeout_s)
            kind = answer.get("error_kind")
            if self.board is None or kind not in ("board", "timeout"):
                return answer
            gone = self._wait_for(self.board)
            if kind == "timeout" and not gone:
                return answer
            if self.board.tracked and answer.get("ran") and self._server is not None:
                # TVM's own server takes nobody twice: it cannot tell the worker that it is alive.
                return {**answer, "error_kind": "lost"}
            if self.stop() or self.give_up():
                return {**answer, "error_kind": "board"}
        return {**answer, "error_kind": "board" if gone else "setup"}

    def _wait_for(self, board: BoardAddress) -> bool:
        """Waits for a board that does not answer; returns whether it was gone."""
        gone = False
        self._server = None
        while not (self.stop() or self.give_up()):
            try:
                board.check(_BOARD_CHECK_S)
                self._server = use_lease(board)
            except TargetError:
                gone = True
                time.sleep(_BOARD_RETRY_S)
            else:
                break
        return gone


def _kernel(built: Built) -> dict[str, Any]:
    args = [[str(info.dtype), [int(n) for n in info.shape]] for info in built.args]
    return {"path": str(built.path), "args": args}


def _target_dict(target: Target, threads: int) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(target.tvm))
    return {**plain, "num-cores": threads}


def _failure(answer: dict[str, Any], kind: str) -> Failure:
    return Failure(kind=answer.get("error_kind", kind), message=answer["error"])

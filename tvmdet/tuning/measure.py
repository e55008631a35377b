"""MetaSchedule's builder and runner over worker processes that live for the whole run.

MetaSchedule's own local builder and runner import every tensor intrinsic of every target in
each worker (28 s) and link through the compiler driver. These ones compile with a bare
``tvm.tirx.build``, link with ``ld``, and keep the machine quiet while they time: candidates of
a round are built side by side first, then run one at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerInput, RunnerResult

from tvmdet.board.linker import find_linker
from tvmdet.board.session import BoardAddress
from tvmdet.cpus import usable_cpu_count
from tvmdet.errors import TargetError
from tvmdet.passes import cpu_pipeline
from tvmdet.passes.lower import CODE_OPTIONS
from tvmdet.targets import Target
from tvmdet.tuning.pool import WorkerPool

__all__ = ["MeasureOptions", "Measurer", "split_error"]

_BOARD_CHECK_S = 5.0
_BOARD_RETRY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How candidates are built and timed.

    Attributes:
        measure_s: Seconds of timed calls per candidate.
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


@dataclass(kw_only=True)
class Measurer:
    """Builds and runs candidates; owns the workers, the temporary folder and the stopwatch.

    Use as a context manager. ``builder`` and ``runner`` are MetaSchedule objects.

    Attributes:
        target: What candidates are compiled for; this machine, or the board, must be able to
            run it.
        threads: Threads that kernels run on.
        options: How they are timed.
        stop: Asked while waiting; once true, what is unfinished fails as ``stopped``.
        best_s: Best latency known of the kernel now being run, for the early abort.
        board: Where candidates run; None for this machine.
        give_up: Asked while a board that is gone is waited for; once true, it is not any more.
    """

    target: Target
    threads: int
    options: MeasureOptions = field(default_factory=MeasureOptions)
    stop: Callable[[], bool] = lambda: False
    best_s: float | None = None
    board: BoardAddress | None = None
    give_up: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        """Makes the pools; processes start with the context."""
        size = self.options.builders or min(usable_cpu_count(), 8)
        self._builders = WorkerPool(size, threads=1, stop=self.stop)
        self._runners = WorkerPool(1, threads=self.threads, stop=self.stop)
        self._cleanup = contextlib.ExitStack()
        self._count = 0
        self._linker = [*find_linker(self.target.arch)]
        self.builder = _PoolBuilder(self)
        self.runner = _PoolRunner(self)

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

    def build(self, inputs: list[BuilderInput]) -> list[BuilderResult]:
        """Builds candidates side by side."""
        requests: list[dict[str, Any]] = []
        same_in_all = {
            "op": "build",
            "target": _target_dict(self.target, self.threads),
            "code_options": dict(CODE_OPTIONS),
            "pipeline": cpu_pipeline.__file__,
            "linker": self._linker,
        }
        for item in inputs:
            self._count += 1
            path = str(self._folder / f"k{self._count}.so")
            module = tvm.ir.save_json(item.mod)
            requests.append({**same_in_all, "module": module, "path": path})
        answers = self._builders.map(requests, self.options.build_timeout_s)
        return [
            BuilderResult(None, _error_text(answer, "build"))
            if "error" in answer
            else BuilderResult(request["path"], None)
            for request, answer in zip(requests, answers, strict=True)
        ]

    def run(self, item: RunnerInput) -> RunnerResult:
        """Times one built candidate and deletes its library."""
        path = str(item.artifact_path)
        best = self.best_s
        request = {
            "op": "run",
            "path": path,
            "args": [[str(i.dtype), [int(n) for n in i.shape]] for i in item.args_info],
            "threads": self.threads,
            "measure_s": self.options.measure_s,
            "abort_above_s": None if best is None else best * self.options.abort_factor,
            "board": None if self.board is None else asdict(self.board),
        }
        answer = self._answer(request)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if "error" in answer:
            return RunnerResult(None, _error_text(answer, "run"))
        return RunnerResult([float(value) for value in answer["latencies_s"]], None)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Asks the runner, and once more when the board was gone, after it is back.

        An error of kind ``board`` says that it is still gone; ``setup``, that it answers and yet
        cannot be used.
        """
        answer: dict[str, Any] = {}
        gone = False
        for _ in range(2):
            (answer,) = self._runners.map([request], self.options.run_timeout_s)
            kind = answer.get("error_kind")
            if self.board is None or kind not in ("board", "timeout"):
                return answer
            gone = self._wait_for(self.board)
            if kind == "timeout" and not gone:
                return answer
            if self.stop() or self.give_up():
                return {**answer, "error_kind": "board"}
        return {**answer, "error_kind": "board" if gone else "setup"}

    def _wait_for(self, board: BoardAddress) -> bool:
        """Waits for a board that does not answer; returns whether it was gone."""
        gone = False
        while not (self.stop() or self.give_up()):
            try:
                board.check(_BOARD_CHECK_S)
            except TargetError:
                gone = True
                time.sleep(_BOARD_RETRY_S)
            else:
                break
        return gone


@derived_object
class _PoolBuilder(PyBuilder):  # type: ignore[misc]
    def __init__(self, measurer: Measurer) -> None:
        super().__init__()
        self._measurer = measurer

    def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
        return self._measurer.build(build_inputs)


@derived_object
class _PoolRunner(PyRunner):  # type: ignore[misc]
    """Hands out futures that do the run when their result is asked for.

    So every result can be written to the store before the next candidate runs.
    """

    def __init__(self, measurer: Measurer) -> None:
        super().__init__()
        self._measurer = measurer

    def run(self, runner_inputs: list[RunnerInput]) -> list[Any]:
        return [_Future(self._measurer, item) for item in runner_inputs]


@derived_object
class _Future(PyRunnerFuture):  # type: ignore[misc]
    def __init__(self, measurer: Measurer, item: RunnerInput) -> None:
        super().__init__()
        self._measurer = measurer
        self._item = item
        self._result: RunnerResult | None = None

    def done(self) -> bool:
        return self._result is not None

    def result(self) -> RunnerResult:
        if self._result is None:
            self._result = self._measurer.run(self._item)
        return self._result


def split_error(text: str) -> tuple[str, str]:
    """Splits the error text of a builder's or runner's result into its kind and message."""
    kind, _, message = text.partition(": ")
    return kind, message


def _target_dict(target: Target, threads: int) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(target.tvm))
    return {**plain, "num-cores": threads}


def _error_text(answer: dict[str, Any], kind: str) -> str:
    return f"{answer.get('error_kind', kind)}: {answer['error']}"

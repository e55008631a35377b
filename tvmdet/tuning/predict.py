"""Candidates without hardware: run once under QEMU, and judged by predicted cycles.

What stands in for a latency is the number of cycles that the busiest thread is predicted to take
(:mod:`tvmdet.board.prediction`). Kernels are counted with one thread; how a schedule divides the
work among several is read off its loops.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy.typing as npt
from tvm import s_tir, tirx
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvmdet.board.counting_board import Counted, CountingBoard
from tvmdet.board.pipeline_model import PipelineModel
from tvmdet.board.prediction import predict
from tvmdet.passes.cpu_pipeline import rounds_together
from tvmdet.tuning.measure import Built, Failure, Measured, Measurer, Rival
from tvmdet.tuning.record import rounded
from tvmdet.tuning.worker import random_tensor

__all__ = ["Predictor", "busiest_share"]

_LONG_S: Final = 1e6
_MAIN: Final = "main"


@dataclass(kw_only=True)
class Predictor(Measurer):
    """A measurer whose "seconds" are predicted cycles.

    Attributes:
        model: Of the core.
    """

    repeats: ClassVar[bool] = True

    model: PipelineModel

    def __post_init__(self) -> None:
        """Makes the pools; the emulated board starts with the first candidate."""
        super().__post_init__()
        self._counting: CountingBoard | None = None
        self._arguments: tuple[str, list[npt.NDArray[Any]]] = ("", [])
        self._sent: list[Any] = []
        self._shares: dict[Path, float] = {}

    def __exit__(self, *exc: object) -> None:
        """Ends the board and the workers."""
        self._end_board()
        super().__exit__(*exc)

    def _start_runners(self) -> None:
        """Does nothing: candidates run on the emulated board."""

    def build(self, inputs: Sequence[MeasureCandidate]) -> list[Built | Failure]:
        """Builds candidates side by side, and notes how each divides its work."""
        built = super().build(inputs)
        for item, result in zip(inputs, built, strict=True):
            if isinstance(result, Built):
                self._shares[result.path] = busiest_share(item.sch.mod[_MAIN], self.threads)
        return built

    def run(
        self,
        built: Built,
        *,
        best_s: float | None = None,
        rival: Rival | None = None,
        longer: float = 1.0,
    ) -> Measured | Failure:
        """Predicts the cycles of one built candidate, which need no rival: they repeat."""
        try:
            counted = self._counted(built)
        except Exception as error:  # TVM raises anything; a kernel may end its board
            self._end_board()
            kind = "timeout" if self._timed_out else "crash"
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return Failure(kind=kind, message=f"under emulation: {lines[-1]}")
        found = predict(counted.blocks, counted.caches, self.model)
        return Measured(latencies_s=rounded([found.busiest_thread(self._shares[built.path])]))

    def discard(self, built: Built) -> None:
        """Deletes a library and what is known of it."""
        self._shares.pop(built.path, None)
        super().discard(built)

    def _counted(self, built: Built) -> Counted:
        self._timed_out = False
        board = self._board()
        infos = [(str(info.dtype), [int(n) for n in info.shape]) for info in built.args]
        if self._arguments[0] != repr(infos):
            arrays = [
                random_tensor(dtype, shape, i).numpy() for i, (dtype, shape) in enumerate(infos)
            ]
            self._arguments, self._sent = (repr(infos), arrays), []
        with self._limited(board):
            if not self._sent:
                self._sent = board.tensors(self._arguments[1])
            function = board.load(built.path)[_MAIN]
            return board.count(lambda: function(*self._sent))

    @contextlib.contextmanager
    def _limited(self, board: CountingBoard) -> Iterator[None]:
        """Ends the board when something takes too long."""

        def end() -> None:
            self._timed_out = True
            board.kill()

        timer = threading.Timer(self.options.run_timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _board(self) -> CountingBoard:
        if self._counting is not None and self._counting.crowded:
            self._end_board()
        if self._counting is None:
            self._counting = CountingBoard(self.target, limit_s=_LONG_S)
        return self._counting

    def _end_board(self) -> None:
        board, self._counting, self._sent = self._counting, None, []
        if board is not None:
            board.close()


def busiest_share(func: tirx.PrimFunc, threads: int) -> float:
    """Returns the share of a kernel's work that the thread does that does most.

    Each of so many threads is taken to take as many runs of rounds of a parallel loop, rounded up;
    what is outside of such loops is done by one. Work is the number of stores, a vector's counting
    once.

    Args:
        func: Scheduled.
        threads: That share it.
    """
    alone, busiest = _work(func.body, threads)
    return busiest / alone if alone else 1.0


def _work(node: Any, threads: int) -> tuple[float, float]:
    """Returns the stores of a statement, done by one thread and by the busiest of many."""
    if isinstance(node, tirx.BufferStore):
        return 1.0, 1.0
    if isinstance(node, tirx.SeqStmt):
        parts = [_work(part, threads) for part in node.seq]
    elif isinstance(node, tirx.IfThenElse):
        cases = [case for case in (node.then_case, node.else_case) if case is not None]
        parts = [max(_work(case, threads) for case in cases)]
    elif isinstance(node, s_tir.SBlockRealize):
        return _work(node.block, threads)
    else:
        parts = [_work(node.body, threads)] if hasattr(node, "body") else []
    alone, busiest = (sum(part[i] for part in parts) for i in range(2))
    if not isinstance(node, tirx.For) or node.kind == tirx.ForKind.VECTORIZED:
        return alone, busiest
    rounds = int(node.extent)
    if node.kind == tirx.ForKind.PARALLEL:
        each = rounds_together(rounds)
        turns = -(-rounds // (each * threads))
        return rounds * alone, min(rounds, turns * each) * alone
    return rounds * alone, rounds * busiest

"""Tunes a model, or any list of tasks, within a wall-clock budget."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from tvmdet.arguments import (
    as_batch_sizes,
    as_path,
    as_seconds,
    check_callable,
    check_kind,
    check_model,
)
from tvmdet.board.count_plugin import why_no_counts
from tvmdet.board.linker import find_linker
from tvmdet.board.pipeline_model import PipelineModel, find_model
from tvmdet.board.prediction import predictor_name
from tvmdet.board.session import BoardAddress, board_threads, connect
from tvmdet.cpus import check_measuring_threads, check_threads
from tvmdet.errors import InputError, TargetError
from tvmdet.passes.check_target import check_target
from tvmdet.passes.conv_algorithms import AlgorithmName, ConvLayer
from tvmdet.passes.fuse_pairs import ConvPair
from tvmdet.passes.lower import lower
from tvmdet.targets import Target, resolve_target
from tvmdet.tuning.measure import MeasureOptions
from tvmdet.tuning.progress import TuningProgress, TuningReport
from tvmdet.tuning.run import TuningRun
from tvmdet.tuning.store import TuningStore, board_cpu, default_store
from tvmdet.tuning.task import Task, extract_tasks

__all__ = ["CostModel", "find_predictor", "tasks_of", "tune", "tune_tasks"]

CostModel: TypeAlias = Literal["measured", "static"]

_BOARD_CORES = 4  # of boards with the named ARM cores; so many threads share a predicted kernel
_EMULATED_RUN_S = 120.0
_BOARD_RUN_S = 60.0  # of a candidate on a board, its arguments sent through the network too
_MIN_GAIN = 2e-4  # of the estimated latency: a slice that promises less is not worth its time


def tune(
    model: Any,
    *,
    target: str | Target = "host",
    budget_s: float = 600.0,
    batch_sizes: int | Sequence[int] = (1,),
    logs: str | os.PathLike[str] | None = None,
    progress: Callable[[TuningProgress], None] | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    board: str | BoardAddress | None = None,
    cost_model: CostModel = "measured",
) -> TuningReport:
    """Measures schedules for a model's kernels and keeps what it finds in the tuning store.

    Args:
        model: As ``tvmdet.import_onnx`` returns it.
        target: Name of a target that this machine, or the board, can run, or the target itself.
        budget_s: Seconds that tuning may take.
        batch_sizes: One, or several: batch buckets that the model will be compiled with.
        logs: Folder to write records to; the user's own store by default.
        progress: Called after every trial, in this thread.
        threads: Threads to measure on, at most one for each CPU; by default the CPUs that this
            process may use.
        precision: ``fp32``, or ``bf16`` to measure layers with bfloat16 products too.
        board: Measure there instead, through its RPC server: its ``HOST:PORT``, or with a key a
            :class:`~tvmdet.board.session.BoardAddress`. When the board is gone for a while,
            tuning waits for it, and only the trial that was running is lost.
        cost_model: ``static`` to predict the cycles of kernels under QEMU and to measure nothing,
            for an ARM core that nobody has at hand. Its records are marked; one that was measured
            always wins over them.

    Returns:
        What was tried and gained. Ctrl-C ends the run early and is told by the report.

    Raises:
        InputError: The budget or a batch size is not positive, there are no such threads here, or
            another argument cannot be used.
        TargetError: The target is unknown, this machine cannot run it, or no TVM RPC server answers
            at the board's address.
        TuningError: xgboost is missing, or the store cannot be written.
    """
    check_kind(precision, str, "precision", "fp32, bf16, fp16 or tf32")
    chosen = resolve_target(target, precision)
    check_target(chosen)
    if isinstance(board, str):
        board = BoardAddress.parse(board)
    if board is not None:
        check_kind(board, BoardAddress, "board", "HOST:PORT, a BoardAddress, or None")
    predictor = find_predictor(chosen, cost_model, board)
    _check(chosen, budget_s, threads, board, predictor)
    sizes = as_batch_sizes(batch_sizes)
    logs = None if logs is None else as_path(logs, "logs")
    check_callable(progress, "progress")
    check_model(model)
    start = time.monotonic()
    return tune_tasks(
        tasks_of(model, sizes, chosen),
        target=chosen,
        store=_store(logs, chosen, board, predictor),
        budget_s=budget_s,
        progress=progress,
        threads=threads,
        model_name=model.name,
        started=start,
        board=board,
        model=predictor,
    )


def tune_tasks(
    tasks: Sequence[Task],
    *,
    target: Target,
    store: TuningStore,
    budget_s: float,
    progress: Callable[[TuningProgress], None] | None = None,
    threads: int | None = None,
    model_name: str = "",
    options: MeasureOptions | None = None,
    min_gain: float = _MIN_GAIN,
    started: float | None = None,
    seed: int = 0,
    board: BoardAddress | None = None,
    model: PipelineModel | None = None,
) -> TuningReport:
    """Tunes tasks; :func:`tune` for what is not a model.

    Args:
        tasks: What to tune; those with a single decision are left out.
        target: What they are compiled for.
        store: Where records are read and written.
        budget_s: Seconds that tuning may take.
        progress: Called after every trial.
        threads: Threads to measure on; by default the CPUs that this process may use.
        model_name: For the records.
        options: How candidates are timed.
        min_gain: Share of the estimated latency that a slice must promise; 0 to go on until
            every candidate is measured or the budget is spent.
        started: ``time.monotonic()`` when the budget began; now by default.
        seed: Of the search's random choices.
        board: Where to measure; None for this machine.
        model: Who predicts cycles, in place of measuring; ``store`` must be one of predictions.

    Raises:
        InputError, TargetError, TuningError: As for :func:`tune`.
    """
    _check(target, budget_s, threads, board, model)
    tunable = [task for task in tasks if task.tunable]
    run = TuningRun(
        tasks=tunable,
        target=target,
        store=store,
        budget_s=budget_s,
        progress=progress,
        threads=threads or _threads(board, model),
        model_name=model_name,
        options=options or _options(board, model),
        min_gain=min_gain,
        started=time.monotonic() if started is None else started,
        seed=seed,
        board=board,
        model=model,
    )
    stopped = run.go()
    return run.report(stopped, untunable=len(tasks) - len(tunable))


def _threads(board: BoardAddress | None, model: PipelineModel | None) -> int:
    if model is not None:
        return _BOARD_CORES
    return check_threads(None) if board is None else board_threads(board)


def _options(board: BoardAddress | None, model: PipelineModel | None) -> MeasureOptions:
    if model is not None:  # a prediction is the same every time: nothing to confirm
        return MeasureOptions(run_timeout_s=_EMULATED_RUN_S, confirm_share=0.0)
    return MeasureOptions(run_timeout_s=10.0 if board is None else _BOARD_RUN_S)


def find_predictor(
    target: Target, cost_model: CostModel, board: BoardAddress | None
) -> PipelineModel | None:
    """Returns who predicts cycles; None when kernels are measured.

    Args:
        target: What is tuned for.
        cost_model: As for :func:`tune`.
        board: As for :func:`tune`.

    Raises:
        InputError: There is no such cost model, or it needs no board.
        TargetError: The target is no ARM CPU, or something that is needed is not installed.
    """
    if cost_model not in get_args(CostModel):
        raise InputError(
            f"no cost model is called {cost_model!r}; there are: {', '.join(get_args(CostModel))}"
        )
    if cost_model == "measured":
        return None
    if board is not None:
        raise InputError(
            "a static cost model measures nothing, and a board was named: leave out one of them"
        )
    if target.family != "arm":
        raise TargetError(
            f"cycles are predicted for ARM cores only, and {target.name} is none; tune it by "
            "measuring, or split with --plan"
        )
    if missing := why_no_counts():
        raise TargetError(f"kernels cannot be run to predict their cycles: {missing}")
    return find_model(target.tvm["mcpu"], target.tvm["mtriple"])


def _store(
    logs: Path | None, target: Target, board: BoardAddress | None, model: PipelineModel | None
) -> TuningStore:
    if model is not None:
        return default_store(logs, cpu=predictor_name(model), predicted=True)
    return default_store(logs, cpu=None if board is None else board_cpu(target))


def _check(
    target: Target,
    budget_s: float,
    threads: int | None,
    board: BoardAddress | None,
    model: PipelineModel | None,
) -> None:
    as_seconds(budget_s, "the tuning budget")
    if board is None and model is None:
        check_measuring_threads(threads)
    else:
        check_threads(threads)
    if target.kind == "cuda":
        raise TargetError(
            f"kernels of {target.name} are timed by a plan: tvmdet tune MODEL --target "
            f"{target.name} --plan DIR, then python DIR/measure.py on the machine with the GPU, "
            "then tvmdet tune --collect DIR"
        )
    missing = target.missing_features() if board is None and model is None else []
    if missing:
        raise TargetError(
            f"this machine cannot run target {target.name}: it lacks {', '.join(missing)}; "
            "tune on a machine that has them, or over RPC (--rpc HOST:PORT), or choose another "
            "target (see `tvmdet targets`)"
            + ("; or predict cycles (--cost-model static)" if target.family == "arm" else "")
        )
    # What no linker helps with is said first: nobody installs one for nothing.
    find_linker(target.arch)
    if board is not None and model is None:
        connect(board)


def tasks_of(model: Any, sizes: tuple[int, ...], target: Target) -> list[Task]:
    """Returns the kernels of a model, with every algorithm and every pair where there is a choice.

    Which is faster is known once all are tuned: the compiler asks the records.
    """
    found: dict[str, Task] = {}
    choice, most, pairs = 0, 1, 0

    def choose(layer: ConvLayer) -> AlgorithmName:
        nonlocal most
        most = max(most, len(layer.compared))
        return layer.compared[min(choice, len(layer.compared) - 1)]

    def take(together: bool) -> None:
        def choose_pair(_pair: ConvPair) -> bool:
            nonlocal pairs
            pairs += 1
            return together

        module = lower(model, sizes, target, algorithm=choose, pairs=choose_pair)
        for task in extract_tasks(module, target):
            found.setdefault(task.fingerprint, task)

    while choice < most:
        pairs = 0
        take(together=False)
        if pairs:
            take(together=True)
        choice += 1
    return list(found.values())

"""``tvmdet tune``: measure kernels within a budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tvmdet import untrusted
from tvmdet.cli import output
from tvmdet.cli.json_output import Json, check_json, deliver, is_printed
from tvmdet.cli.options import (
    Batch,
    Board,
    BoardKey,
    Debug,
    Logs,
    Precision,
    Size,
    Spec,
    Threads,
    Timeout,
    check_own_target,
    given_again,
    parse_batch,
    parse_board,
    parse_duration,
    parse_names,
    parse_size,
    target_again,
)
from tvmdet.cli.progress import Bar, Phases
from tvmdet.contain import Bounds
from tvmdet.counted import counted
from tvmdet.model_file import check_model_file

if TYPE_CHECKING:
    from tvmdet.board.session import BoardAddress
    from tvmdet.frontend import Model
    from tvmdet.tuning import TuningProgress, TuningReport
    from tvmdet.tuning.driver import CostModel

__all__ = ["tune"]

_INTERRUPTED = 130
_RESUME = "Every measured trial is kept; the same command goes on from there"


def tune(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL.onnx", help="The detector; not with --collect.")
    ] = None,
    target: Annotated[
        str, typer.Option("--target", metavar="T", help="What to tune for; host: this machine.")
    ] = "host",
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="How long: 90s, 10m, 1h.")
    ] = "10m",
    batch: Batch = "1",
    size: Size = None,
    spec: Spec = None,
    raw: Annotated[bool, typer.Option("--raw", help="The network without a head.")] = False,
    logs: Logs = None,
    threads: Threads = None,
    precision: Precision = "fp32",
    rpc: Board = None,
    key: BoardKey = "",
    cost_model: Annotated[
        str,
        typer.Option(
            "--cost-model",
            metavar="M",
            help="static: predict the cycles of an ARM core, without one; else measured.",
        ),
    ] = "measured",
    timeout: Timeout = "30m",
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="DIR",
            help="Build candidates into a new folder, to be measured elsewhere by its measure.py.",
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option("--candidates", metavar="N", help="Of each kernel of a plan.")
    ] = 8,
    collect: Annotated[
        Path | None,
        typer.Option("--collect", metavar="DIR", help="Take a measured plan's results back."),
    ] = None,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """Find fast schedules within a time budget.

    Stop it at any moment: nothing measured is lost.
    """
    check_json(json, (model, spec))
    if collect is not None:
        return _collect(collect, logs, json)
    if model is None:
        raise typer.BadParameter("name a model, or a measured plan with --collect DIR")
    budget_s, batch_sizes, size_hw = parse_duration(budget), parse_batch(batch), parse_size(size)
    timeout_s = parse_duration(timeout, "--timeout")
    board = parse_board(rpc, key)
    if len(parse_names(target)) != 1:
        raise typer.BadParameter(
            f"{target!r} names several targets; tune one at a time, on a machine that has it",
            param_hint="--target",
        )
    from tvmdet.targets import resolve_target

    chosen = resolve_target(target, precision)
    check_own_target(chosen)
    if cost_model != "measured":  # what is wrong with it is told before the model is read
        from tvmdet.tuning.driver import find_predictor

        find_predictor(chosen, cast("CostModel", cost_model), board)
    check_model_file(model)
    try:
        with Phases() as phase:
            phase(f"importing {model}")
            imported = untrusted.import_onnx(
                model,
                spec=spec,
                size_hw=size_hw,
                raw=raw,
                batch_sizes=batch_sizes,
                bounds=Bounds(timeout_s=timeout_s),
                tell=phase.tell,
            )
        if plan is not None:
            return _plan(
                imported, model, plan, target, batch_sizes, candidates, logs, precision, json
            )
        report = _tune_showing(
            imported,
            target=target,
            budget_s=budget_s,
            batch_sizes=batch_sizes,
            logs=logs,
            threads=threads,
            precision=precision,
            board=board,
            cost_model=cost_model,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted. {_RESUME}") from None
    deliver(json, report.to_dict(), lambda: None if report.too_short else _print(report))
    if report.interrupted:
        output.error(f"interrupted after {counted(report.trials, 'trial')}. {_RESUME}")
        return _INTERRUPTED
    if report.too_short:
        output.error(_too_short(report, budget_s))
        return 1
    if not is_printed(json):
        options = given_again(batch=batch, size=size, spec=spec, raw=raw, precision=precision)
        options += [] if logs is None else ["--logs", str(logs)]
        options += ["-o", f"{model.stem}.tvmdet"]
        again = target_again(report.target, (target,))
        output.next_step("tvmdet", "compile", model, "--target", again, *options)
    return 0


def _plan(
    imported: Model,
    path: Path,
    folder: Path,
    target: str,
    batch_sizes: tuple[int, ...],
    candidates: int,
    logs: Path | None,
    precision: str,
    json: str | None,
) -> int:
    from tvmdet.tuning.plan import make_plan

    with Phases() as phase:
        made = make_plan(
            imported,
            target=target,
            folder=folder,
            batch_sizes=batch_sizes,
            candidates=candidates,
            logs=logs,
            precision=precision,
            progress=phase,
        )
    rows = [
        ("plan", f"{made.folder}, for {made.target}"),
        ("kernels", f"{made.tasks}, {counted(made.candidates, 'candidate')}"),
        ("measure it", f"copy the folder to the hardware, run: python {folder}/measure.py"),
    ]
    deliver(json, made.to_dict(), lambda: output.facts(rows))
    if is_printed(json):
        return 0
    for anchor, reason in made.failed:
        output.warning(f"{anchor} is not in the plan: {reason}")
    output.next_step("tvmdet", "tune", "--collect", folder)
    return 0


def _collect(folder: Path, logs: Path | None, json: str | None) -> int:
    from tvmdet.tuning.plan import collect_plan

    found = collect_plan(folder, logs=logs)
    rows = [
        ("target", f"{found.target}, measured on {found.device or 'nothing'}"),
        ("candidates", f"{found.measured} ran, {found.failed} failed, {found.missing} to do"),
        ("new records", str(found.new)),
    ]
    deliver(json, found.to_dict(), lambda: output.facts(rows))
    if not is_printed(json):
        output.next_step("tvmdet", "compile", "MODEL.onnx", "--target", target_again(found.target))
    return 0


def _tune_showing(
    model: Model,
    *,
    target: str,
    budget_s: float,
    batch_sizes: tuple[int, ...],
    logs: Path | None,
    threads: int | None,
    precision: str,
    board: BoardAddress | None,
    cost_model: str,
) -> TuningReport:
    with Bar("tuning", total=budget_s) as bar:
        bar.update(0, "listing the kernels")
        from tvmdet.tuning import tune as tune_model

        return tune_model(
            model,
            target=target,
            budget_s=budget_s,
            batch_sizes=batch_sizes,
            logs=logs,
            threads=threads,
            precision=precision,
            board=board,
            cost_model=cast("CostModel", cost_model),
            progress=lambda now: bar.update(now.elapsed_s, _line(now)),
        )


def _line(now: TuningProgress) -> str:
    parts = [f"{_clock(now.eta_s)} left", counted(now.trials, "trial")]
    if now.predicted_cycles is not None:
        parts.append(_cycles(now.predicted_cycles_before, now.predicted_cycles))
    if now.latency_s is not None:
        first = output.milliseconds(now.latency_start_s)
        latency = output.milliseconds(now.latency_s)
        parts.append(f"kernels {first} -> {latency}" if first != latency else f"kernels {latency}")
    return " | ".join(part for part in (*parts, now.known) if part)


def _cycles(before: float | None, after: float | None) -> str:
    """Writes predicted cycles, which are never shown as a time."""
    if before is None or after is None:
        return "cycles not predicted yet"
    return f"{before / 1e6:,.2f} M -> {after / 1e6:,.2f} M cycles, predicted"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes}:{rest:02}"


_STOPPED = {
    "budget": "the budget is spent",
    "converged": "nothing promises a gain worth its time any more",
    "exhausted": "no candidate is left",
    "interrupted": "interrupted",
}


def _more_time(report: TuningReport) -> str:
    """Says what tuning longer would bring."""
    if report.stopped != "budget" or report.recent_gain is None:
        return ""
    return (
        f"the last {_clock(report.recent_s)} of the search saved {report.recent_gain:.1%}; "
        "as much again saves less"
    )


def _too_short(report: TuningReport, budget_s: float) -> str:
    """Says why nothing was tried, and what that would take."""
    listing = report.spent_s.get("list", 0.0)
    return (
        f"nothing was tried: of a budget of {budget_s:g} s, listing "
        f"{counted(report.tasks, 'kernel')} took {listing:.0f} s, and building the first "
        f"candidates does not fit into what is left; {_enough(report)}"
    )


def _enough(report: TuningReport) -> str:
    """Says what it takes to try each kernel."""
    enough = math.ceil(report.least_budget_s / 10) * 10
    return f"to try each once takes about {enough} s: give --budget {enough}s or more"


def _print(report: TuningReport) -> None:
    before, after = report.latency_before_s, report.latency_after_s
    time = ("kernel time", f"{output.milliseconds(before)} -> {output.milliseconds(after)}")
    if report.predicted_by:
        before, after = report.predicted_cycles_before, report.predicted_cycles
        time = ("kernels", _cycles(before, after))
    gain = f" ({before / after:.2f}x)" if before and after else ""
    verb = "predicted" if report.predicted_by else "measured"
    output.facts(
        [
            ("target", f"{report.target}, {counted(report.threads, 'thread')}"),
            ("kernels", f"{report.tasks} to tune, {report.known_before} of them already known"),
            ("trials", f"{report.trials} in {_clock(report.seconds)}"),
            ("improved", f"{report.improved}, and {report.new} {verb} for the first time"),
            (time[0], f"{time[1]}{gain}"),
            *([("predicted by", report.predicted_by)] if report.predicted_by else []),
            ("ended", _STOPPED.get(report.stopped, report.stopped)),
            *([("more time", more)] if (more := _more_time(report)) else []),
        ]
    )
    unknown = report.tasks - report.known_before
    if report.stopped == "budget" and report.new < unknown / 2:
        spent = ", ".join(
            f"{phase} {seconds:.0f} s" for phase, seconds in report.spent_s.items() if seconds >= 1
        )
        output.warning(
            f"the budget was spent on {counted(report.trials, 'trial')} for "
            f"{counted(unknown, 'kernel')} that nobody had measured"
            f"{f' ({spent})' if spent else ''}; {_enough(report)}"
        )
    for anchor, reason in report.failed:
        output.warning(f"{anchor} keeps its default schedule: {reason}")

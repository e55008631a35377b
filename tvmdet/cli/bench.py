"""``tvmdet bench``: how fast a compiled file is, and against whom."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmdet.cli import output
from tvmdet.cli.json_output import Json, check_json, is_printed, write_json
from tvmdet.cli.options import (
    Batch,
    Board,
    BoardKey,
    Debug,
    Logs,
    Rounds,
    Threads,
    ToleranceShare,
    parse_batch,
    parse_board,
    parse_duration,
)
from tvmdet.cli.progress import Bar, Phases
from tvmdet.counted import counted

if TYPE_CHECKING:
    from tvmdet.report import BenchReport
    from tvmdet.report.result_subject import Prices

__all__ = ["bench"]


def bench(
    model: Annotated[
        Path | None, typer.Argument(metavar="FILE.tvmdet", help="A compiled file.")
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", metavar="MODEL.onnx", help="What it was compiled from."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="NAME[,NAME...]",
            help="Rivals: onnxruntime, openvino, ncnn, mnn, torch; or torch-eager, torch-compile.",
        ),
    ] = None,
    batch: Batch = "1",
    precision: Annotated[
        str,
        typer.Option(
            "--precision", metavar="P[,P]", help="What rivals may compute in: fp32, bf16."
        ),
    ] = "fp32",
    rounds: Rounds = None,
    duration: Annotated[
        str, typer.Option("--duration", metavar="TIME", help="How long each table is measured.")
    ] = "20s",
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="IMAGE", help="For end-to-end calls; else a drawn one."),
    ] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Time every kernel; what tuning could still win.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="T", help="Whose code to run, instead of the best."),
    ] = None,
    rpc: Board = None,
    key: BoardKey = "",
    logs: Logs = None,
    tolerance: ToleranceShare = None,
    threads: Threads = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval", metavar="FILE", help="What tvmdet eval --json wrote of it: AP beside speed."
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            "--price", metavar="P[ CUR]", help="Of an hour of this machine, such as '0.35 USD'."
        ),
    ] = None,
    json: Json = None,
    install: Annotated[
        str | None,
        typer.Option(
            "--install", metavar="NAME[,NAME...]", help="Install rivals, apart from tvmdet."
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Measure a compiled file, alone or against other runtimes, here or on a board.

    Answers are compared before anything is timed; contestants are timed in turn.
    """
    if install is not None:
        _install(install)
    if model is None:
        if install is not None:
            return 0
        raise typer.BadParameter("give a compiled FILE.tvmdet, or --install", param_hint="FILE")
    check_json(json, (model, onnx, evaluation, picture))
    board = parse_board(rpc, key)
    with Phases() as phase:
        phase("starting")
        from tvmdet.report import BenchOptions, Plan
        from tvmdet.report import bench as bench_file

        options = BenchOptions(
            onnx=onnx,
            against=_names(against, "--against"),
            precisions=_names(precision, "--precision"),
            batch_sizes=parse_batch(batch),
            threads=threads,
            target=target,
            plan=Plan(rounds=rounds, duration_s=parse_duration(duration, "--duration")),
            picture=picture,
            per_layer=per_layer,
            logs=logs,
            tolerance=tolerance,
            evaluation=evaluation,
            prices=_price(price),
            board=board,
        )
        with Bar("timing") as bar:
            report = bench_file(
                model,
                options,
                say=phase,
                progress=lambda what, n, s: bar.update(
                    n, f"{what}: {counted(n, 'round')}, {s:.0f} s"
                ),
                command=("tvmdet", *sys.argv[1:]),
            )
    if is_printed(json):
        output.print_json(report.to_dict())
        return _judge(report)
    _print(report)
    if json is not None:
        from tvmdet.report import dump_result

        write_json(json, dump_result(report.to_dict()))
    if not report.failures:
        _name_next_step(report, model, onnx, json)
    return _judge(report)


def _judge(report: BenchReport) -> int:
    """Prints why tvmdet itself was not timed, if it was not, and returns the exit code."""
    if not report.failures:
        return 0
    output.error(
        f"tvmdet is not timed: {'; '.join(report.failures)}. Compile it again, which checks it; "
        "allow more with --tolerance where that is meant"
    )
    return 1


def _install(names: str) -> None:
    from tvmdet.report import find_rivals
    from tvmdet.report import install as install_rivals

    with Phases() as phase:
        places = install_rivals(find_rivals(_names(names, "--install")), say=phase)
    for place in places:
        output.stdout().print(f"installed in {place}", soft_wrap=True)


def _names(text: str | None, option: str) -> tuple[str, ...]:
    """Reads ``onnxruntime,openvino``."""
    if text is None:
        return ()
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if not all(names):
        raise typer.BadParameter(f"{text!r} is no list of names", param_hint=option)
    return names


def _price(text: str | None) -> Prices | None:
    """Reads ``0.35 USD``."""
    from tvmdet.report.result_subject import Prices

    if text is None:
        return None
    number, _, currency = text.strip().partition(" ")
    try:
        per_hour = float(number)
    except ValueError:
        per_hour = math.nan
    if not 0 <= per_hour < math.inf:
        raise typer.BadParameter(
            f"{text!r} is no price; write a number and a currency, such as '0.35 USD'",
            param_hint="--price",
        )
    return Prices(per_hour=per_hour, currency=currency.strip())


def _print(report: BenchReport) -> None:
    from tvmdet.report.render import grids, machine_lines

    output.facts(machine_lines(report))
    for grid in grids(report):
        numbers = [column for column in grid.columns if column not in grid.words]
        output.table(grid.columns, grid.rows, title=grid.title, right=numbers, gap=True)
        for line in grid.below:
            output.stdout().print(line, soft_wrap=True)
    for line in report.warnings:
        output.warning(line)


def _name_next_step(report: BenchReport, model: Path, onnx: Path | None, json: str | None) -> None:
    from tvmdet.artifact import Artifact
    from tvmdet.report.file_target import name_again

    source = onnx or "MODEL.onnx"
    target = name_again(Artifact.open(model), report.subject.target.name)
    if not report.tables:  # emulated: nothing was timed
        output.next_step("tvmdet", "tune", source, "--target", target, "--cost-model", "static")
    elif report.setup.board is not None:
        where = ["--rpc", report.setup.board]
        where += ["--key", report.setup.board_key] if report.setup.board_key else []
        again = ["tvmdet", "bench", model, *where, "--json", "board.json"]
        output.next_step(*(["tvmdet", "report", json, "-o", "report.html"] if json else again))
    elif report.is_slower:
        output.next_step("tvmdet", "tune", source, "--target", target)
    elif not report.layers:
        output.next_step("tvmdet", "bench", model, "--per-layer")
    else:
        output.next_step("tvmdet", "bench", model, "--onnx", source, "--against", "onnxruntime")

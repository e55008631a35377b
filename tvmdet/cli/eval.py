"""``tvmdet eval``: how well a compiled file finds what is annotated, as COCO measures it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmdet.cli import output
from tvmdet.cli.json_output import Json, check_json, deliver, is_printed
from tvmdet.cli.options import Debug, Threads
from tvmdet.cli.progress import Bar, Phases
from tvmdet.counted import counted
from tvmdet.errors import InputError

if TYPE_CHECKING:
    from tvmdet.report import EvalReport
    from tvmdet.report.coco_metrics import Figures

__all__ = ["eval_"]


def eval_(
    model: Annotated[Path, typer.Argument(metavar="FILE.tvmdet", help="A compiled detector.")],
    annotations: Annotated[
        Path,
        typer.Option(
            "--annotations", metavar="FILE.json", help="What is in the pictures, in COCO's format."
        ),
    ],
    images: Annotated[
        Path, typer.Option("--images", metavar="DIR", help="The folder of the pictures.")
    ],
    onnx: Annotated[
        Path | None,
        typer.Option(
            "--onnx", metavar="MODEL.onnx", help="What it was compiled from: the same there."
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop",
            min=0.0,
            max=1.0,
            metavar="D",
            help="With --onnx: fail where AP differs by more.",
        ),
    ] = 0.001,
    classes_by: Annotated[
        str,
        typer.Option(
            "--classes-by",
            metavar="HOW",
            help="Which category a class is: by name, by id, or by order.",
        ),
    ] = "name",
    score: Annotated[
        float,
        typer.Option(
            "--score", min=0.0, max=1.0, metavar="S", help="Count what scores more, 0 to 1."
        ),
    ] = 0.001,
    iou: Annotated[
        float | None,
        typer.Option(
            "--iou",
            min=0.0,
            max=1.0,
            metavar="I",
            help="Of boxes that overlap more, count the best, 0 to 1; else as the file says.",
        ),
    ] = None,
    sigmas: Annotated[
        str | None,
        typer.Option(
            "--sigmas",
            metavar="S,S,...",
            help="How far each keypoint may be off, as a share of the object's size; "
            "else COCO's, or one over their number.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="Take the first N pictures only."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="T", help="Whose code to run, instead of the best."),
    ] = None,
    threads: Threads = None,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """Measure average precision on annotated pictures, and beside it that of ONNX Runtime."""
    check_json(json, (model, annotations, onnx))
    with Phases() as phase:
        phase("starting")
        from tvmdet.report import EvalOptions, evaluate

        options = EvalOptions(
            annotations=annotations,
            images=images,
            onnx=onnx,
            score=score,
            sigmas=None if sigmas is None else _numbers(sigmas),
            iou=iou,
            classes_by=classes_by,
            limit=limit,
            max_drop=max_drop,
            threads=threads,
            target=target,
        )
        with Bar("pictures") as bar:
            report = evaluate(
                model,
                options,
                say=phase,
                progress=lambda what, n, total: bar.update(n, f"{what}: {n}/{total}"),
                command=("tvmdet", *sys.argv[1:]),
            )
    for line in report.warnings:
        output.warning(line)
    deliver(json, report.to_dict(), lambda: _print(report))
    if not is_printed(json):
        _name_next_step(report, model, onnx)
    if report.differs:
        output.error(
            f"AP of {' and '.join(report.differs)} differs from that of ONNX Runtime by more than "
            f"--max-drop {max_drop:g}"
        )
        return 1
    return 0


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--sigmas {text} is no list of numbers; give one for each keypoint, such as "
            "0.026,0.025,0.025"
        ) from error


def _print(report: EvalReport) -> None:
    kinds = "".join(f", with {kind}" for kind in report.figures if kind != "boxes")
    output.facts(
        [
            ("file", f"{report.artifact} ({report.model.get('name')})"),
            ("code for", report.target),
            ("annotations", report.annotations),
            ("pictures", f"{report.images}, {counted(report.objects, 'object')}{kinds}"),
            ("counted", f"score over {report.score:g}, overlaps up to IoU {report.iou:g}"),
            ("computed by", report.backend),
            ("reference", "" if report.reference is None else report.reference.runtime),
        ]
    )
    columns = ["figure"]
    for what, (_, right) in report.pairs().items():
        columns += [what] if right is None else [what, f"{what}, reference", "difference"]
    output.table(columns, _figure_rows(report), right=columns[1:], gap=True)
    columns = ["class", "objects", "detections"]
    for what, (_, right) in report.pairs().items():
        columns += [f"{what} AP", f"{what} AP50"]
        columns += [] if right is None else ["difference AP"]
    output.table(columns, _class_rows(report), right=columns[1:], gap=True)


def _figure_rows(report: EvalReport) -> Iterator[list[str]]:
    # Of keypoints others are counted than of boxes: 20 detections instead of 100, none small.
    for name in dict.fromkeys(name for mine in report.figures.values() for name in mine.values):
        row = [name]
        for mine, right in report.pairs().values():
            row.append(_share(mine.values.get(name)))
            if right is not None:
                row += [_share(right.values.get(name)), _gap(mine.minus(right).get(name))]
        yield row


def _class_rows(report: EvalReport) -> Iterator[list[str]]:
    for index, one in enumerate(report.boxes.classes):
        if not (one.objects or one.detections):
            continue
        row = [one.name, str(one.objects), str(one.detections)]
        for mine, right in report.pairs().values():
            row += [_share(mine.classes[index].ap), _share(mine.classes[index].ap50)]
            if right is not None:
                row.append(_class_gap(mine, right, index))
        yield row


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _gap(value: float | None) -> str:
    return "" if value is None else f"{value:+.5f}"


def _class_gap(mine: Figures, right: Figures, index: int) -> str:
    ours, theirs = mine.classes[index].ap, right.classes[index].ap
    return "" if ours is None or theirs is None else _gap(ours - theirs)


def _name_next_step(report: EvalReport, model: Path, onnx: Path | None) -> None:
    if report.reference is None:
        output.next_step(*_again(report, model), "--onnx", "MODEL.onnx")
    elif report.differs:
        output.next_step("tvmdet", "doctor", onnx)
    else:
        output.next_step("tvmdet", "bench", model, "--onnx", onnx, "--against", "onnxruntime")


def _again(report: EvalReport, model: Path) -> list[object]:
    words = list(report.command)
    # Called from Python, there is no command line to add to.
    return [*words] if str(model) in words else ["tvmdet", "eval", model]

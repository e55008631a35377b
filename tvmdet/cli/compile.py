"""``tvmdet compile``: an ONNX file becomes a ``.tvmdet`` file."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmdet import untrusted
from tvmdet.cli import output
from tvmdet.cli.certificate import print_certificate
from tvmdet.cli.files import check_writable
from tvmdet.cli.json_output import Json, check_json, deliver, is_printed
from tvmdet.cli.options import (
    Batch,
    Debug,
    Logs,
    OnnxFile,
    Precisions,
    Size,
    Spec,
    Timeout,
    ToleranceShare,
    check_own_target,
    given_again,
    parse_batch,
    parse_duration,
    parse_names,
    parse_precisions,
    parse_size,
    target_again,
)
from tvmdet.cli.progress import Phases
from tvmdet.contain import Bounds
from tvmdet.counted import counted
from tvmdet.errors import TargetError
from tvmdet.model_file import check_model_file

if TYPE_CHECKING:
    from tvmdet.compiler import CompileReport

__all__ = ["compile_"]

_SOURCES = ("tuned", "elsewhere", "borrowed", "near", "predicted", "default")
_LEGEND = (
    "kernels by where their schedules come from: measured on this processor (tuned) or another "
    "(elsewhere), those of a kernel much like it (borrowed, near), predicted, or the first guess"
)


def compile_(
    model: OnnxFile,
    target: Annotated[
        str,
        typer.Option("--target", metavar="T[,T...]", help="What to compile for; host: this one."),
    ] = "host",
    batch: Batch = "1",
    size: Size = None,
    spec: Spec = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The network without a head: arrays in, arrays out.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Images of yours for the parity check."),
    ] = None,
    logs: Logs = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            max=1024,
            metavar="N",
            help="Threads that the file will run on, here or elsewhere; by default every CPU here.",
        ),
    ] = None,
    precision: Precisions = "fp32",
    tolerance: ToleranceShare = None,
    timeout: Timeout = "30m",
    output_: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="By default MODEL.tvmdet, here."),
    ] = None,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """Compile a detector into one checked file.

    The build fails, and writes nothing, when what it finds differs from ONNX Runtime. A target that
    this machine can neither run nor emulate is not compared, which is said.
    """
    names, batch_sizes, size_hw = parse_names(target), parse_batch(batch), parse_size(size)
    timeout_s, precisions = parse_duration(timeout, "--timeout"), parse_precisions(precision)
    destination = output_ or Path(f"{model.stem}.tvmdet")
    check_json(json, (model, spec, destination))
    check_writable(destination, "-o", (model, spec))
    different = _check(model, names, precisions)
    if tolerance is not None and len(different) > 1:
        raise typer.BadParameter(
            f"it would be that of {' and '.join(sorted(different))}; compile targets of different "
            "precision without it, or one by one",
            param_hint="--tolerance",
        )
    with _nothing_written(), Phases() as phase:
        phase(f"importing {model}")
        with untrusted.start_import(
            model,
            spec=spec,
            size_hw=size_hw,
            raw=raw,
            batch_sizes=batch_sizes,
            bounds=Bounds(timeout_s=timeout_s),
            tell=phase.tell,
        ) as work:
            # The compiler is imported here while the model is imported there.
            from tvmdet.compiler import compile as compile_model
            from tvmdet.compiler.tolerance import Tolerance

            imported = work.result()
        allowed = None
        if tolerance is not None:
            allowed = replace(Tolerance.at_precision(different.pop()), raw=tolerance)
        report = compile_model(
            imported,
            target=names,
            batch_sizes=batch_sizes,
            output=destination,
            images=images,
            logs=logs,
            threads=threads,
            precision=precisions,
            tolerance=allowed,
            progress=phase,
        )
    deliver(
        json,
        report.to_dict(),
        lambda: _print(report, imported.spec.family, imported.recognition),
    )
    if is_printed(json):
        return 0
    again = given_again(batch=batch, size=size, spec=spec, raw=raw)
    _advise(report, model, again, names)
    if all("skipped" in one or "emulated" in one for one in report.parity.values()):
        # None of it runs on this machine.
        output.next_step("tvmdet", "inspect", report.output, "--here")
    elif imported.spec.family == "raw":
        output.next_step("tvmdet", "inspect", report.output)
    else:
        output.next_step("tvmdet", "detect", report.output, "IMAGE.jpg")
    return 0


@contextmanager
def _nothing_written() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; nothing was written") from None


def _check(model: Path, targets: Sequence[str], precision: str | Mapping[str, str]) -> set[str]:
    """Refuses at once what would be refused after the model is read; returns the precisions."""
    from tvmdet.compiler.precisions import precisions_of
    from tvmdet.targets import resolve_target

    precisions = precisions_of(precision, targets)
    for name, one in zip(targets, precisions, strict=True):
        try:
            found = resolve_target(name, one)
        except TargetError as error:
            able = [other for other in targets if _computes_in(other, one)]
            if not able or not isinstance(precision, str):
                raise
            said = ",".join(f"{other}={one}" for other in able)
            raise TargetError(f"{error}; say it of the others only: --precision {said}") from error
        check_own_target(found)
    check_model_file(model)
    return set(precisions)


def _computes_in(target: str, precision: str) -> bool:
    """Returns whether a target has a precision."""
    from tvmdet.targets import resolve_target

    return precision in resolve_target(target).precisions


def _print(report: CompileReport, family: str, recognition: tuple[str, ...]) -> None:
    output.facts(
        [
            ("file", f"{report.output} ({output.megabytes(report.bytes)})"),
            ("family", family),
            ("because", "\n".join(recognition)),
        ]
    )
    output.table(
        ("target", "precision", *_SOURCES),
        [
            (
                name,
                report.precisions.get(name, "fp32"),
                *(report.tuning[name].get(key, 0) for key in _SOURCES),
            )
            for name in report.targets
        ],
        right=_SOURCES,
        gap=True,
    )
    if any(report.tuning[name].get(key) for name in report.targets for key in _SOURCES[1:]):
        output.stdout().print(_LEGEND, style="dim", soft_wrap=True)
    print_certificate(report.parity)
    passed_over = [
        (target, kernel, reason)
        for target, reasons in report.fallbacks.items()
        for kernel, reason in reasons.items()
    ]
    if passed_over:
        columns = ("target", "kernel", "its tuning record is passed over because")
        output.table(columns, passed_over, gap=True)


def _advise(
    report: CompileReport, model: Path, options: Sequence[str], given: Sequence[str]
) -> None:
    """Says what was not checked, and what would make the file faster."""
    for name in report.targets:
        if why := report.parity.get(name, {}).get("skipped"):
            output.warning(
                f"{name} was not compared with ONNX Runtime, {why}; compile on a machine that runs "
                "it, or compare what both find before you ship it"
            )
        target = target_again(name, given)
        rounded = report.precisions.get(name, "fp32")
        again = [*options, *(["--precision", rounded] if rounded != "fp32" else [])]
        same = "".join(f" {shlex.quote(option)}" for option in again)
        if report.fallbacks.get(name):
            output.warning(
                f"{counted(len(report.fallbacks[name]), 'tuning record')} for {name} cannot be "
                f"used; measure those kernels again: tvmdet tune {model} --target {target}{same}"
                f"{_tuned_with(target)}"
            )
        counts = report.tuning[name]
        elsewhere = counts.get("elsewhere", 0)
        untuned = sum(counts.get(key, 0) for key in _SOURCES[2:])
        total = untuned + elsewhere + counts.get("tuned", 0)
        if untuned * 2 > total:
            output.warning(
                f"{untuned} of {counted(total, 'kernel')} not tuned for {name}; for a faster file "
                f"run: tvmdet tune {model} --target {target}{same}{_tuned_with(target)}, "
                "and compile again"
            )
        elif elsewhere * 2 > total and not _tuned_with(target):
            output.warning(
                f"{elsewhere} of {counted(total, 'kernel')} for {name} measured on another "
                f"processor; minutes on this one may make the file faster: tvmdet tune {model} "
                f"--target {target}{same}, and compile again"
            )


def _tuned_with(given: str) -> str:
    """Returns what tuning needs for a target that this machine cannot run; else nothing."""
    from tvmdet.targets import get_target

    target = get_target(given)
    if not target.missing_features():
        return ""
    if target.kind == "cuda":
        return " --plan FOLDER (to be measured where such a GPU is)"
    if target.arch != platform.machine():
        return " --rpc HOST:PORT (a board; or, without one, --cost-model static)"
    return " on a machine that runs it"

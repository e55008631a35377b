"""``tvmdet verify``: a recorded benchmark done again, for continuous integration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmdet.cli import output
from tvmdet.cli.files import check_writable, written_whole
from tvmdet.cli.json_output import Json, check_json, deliver, is_printed
from tvmdet.cli.options import (
    Board,
    BoardKey,
    Debug,
    Rounds,
    parse_board,
    parse_duration,
    parse_share,
)
from tvmdet.cli.progress import Bar, Phases
from tvmdet.counted import counted

if TYPE_CHECKING:
    from tvmdet.report import Verification
    from tvmdet.report.changes import Change

__all__ = ["verify"]


def verify(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT.json", help="What tvmdet bench --json wrote.")
    ],
    artifact: Annotated[
        Path | None,
        typer.Option("--artifact", metavar="FILE.tvmdet", help="Instead of the recorded path."),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", metavar="MODEL.onnx", help="Instead of the recorded path."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="IMAGE", help="Instead of the recorded path."),
    ] = None,
    rpc: Board = None,
    key: BoardKey = "",
    other_hardware: Annotated[
        bool, typer.Option("--other-hardware", help="Go on where the machine is another one.")
    ] = False,
    attempts: Annotated[
        int,
        typer.Option(
            "--attempts", min=1, max=100, metavar="N", help="Slow-downs are seen N times to count."
        ),
    ] = 2,
    rounds: Rounds = None,
    duration: Annotated[
        str | None,
        typer.Option("--duration", metavar="TIME", help="Of each table; else as recorded."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Fail also where a slow-down of --sees could have been missed."
        ),
    ] = False,
    sees: Annotated[
        str,
        typer.Option(
            "--sees", metavar="SHARE", help="With --strict: what must be found, such as 5%."
        ),
    ] = "10%",
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Write the new result, to verify it later."),
    ] = None,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """Repeat a recorded benchmark; fail where it is slower beyond noise, or answers otherwise."""
    check_writable(save, "--save", (result, artifact, onnx, picture))
    check_json(json, (result, artifact, onnx, picture, save))
    board = parse_board(rpc, key)
    with Phases() as phase:
        phase("starting")
        from tvmdet.report import VerifyOptions, load_result
        from tvmdet.report import verify as verify_result

        recorded = load_result(result)
        options = VerifyOptions(
            artifact=artifact,
            onnx=onnx,
            picture=picture,
            board=board,
            other_hardware=other_hardware,
            attempts=attempts,
            rounds=rounds,
            duration_s=None if duration is None else parse_duration(duration, "--duration"),
            complete=save is not None,
            sees=parse_share(sees, "--sees") if strict else None,
        )
        with Bar("timing") as bar:
            found = verify_result(
                recorded,
                options,
                where=str(result),
                say=phase,
                progress=lambda what, n, s: bar.update(
                    n, f"{what}: {counted(n, 'round')}, {s:.0f} s"
                ),
                command=("tvmdet", *sys.argv[1:]),
            )
    _save(found, save)
    deliver(json, found.to_dict(), lambda: _print(found))
    code = _judge(found)
    if code == 0 and not is_printed(json):
        _print_passed(found, strict=strict)
    return code


def _save(found: Verification, save: Path | None) -> None:
    from tvmdet.report import dump_result

    if save is not None:
        with written_whole(save, "--save") as temporary:
            temporary.write_text(dump_result(found.report.to_dict()), encoding="utf-8")


def _print(found: Verification) -> None:
    columns = ("", "measure", "then ms", "now ms", "now / then", "now it is", "could have seen")
    output.table(
        columns,
        [_row(change) for change in found.changes],
        right=("then ms", "now ms", "could have seen"),
    )
    for line in (*found.hardware, *found.notes):
        output.warning(line)
    for change in found.doubtful:
        output.warning(f"{change.what}: slower, but no finding: {change.doubt}")
    for change in found.changes:
        if change.by and not change.doubt:
            output.warning(
                f"{change.what}: by the yardstick it cannot be told; {change.by}, timed beside it "
                "both times, shows it"
            )


def _print_passed(found: Verification, *, strict: bool) -> None:
    from tvmdet.report.detectable import missed

    open_ones = [change for change in found.changes if change.verdict == "undecided"]
    text = f"passed: of {counted(len(found.changes), 'measure')} none is slower beyond noise"
    slower = (change for change in found.changes if change.verdict == "slower")
    alone = [f"{change.what}, {change.measure}" for change in slower]
    if alone:
        text = (
            "passed: no time is slower beyond noise, seen every time and against every rival; "
            f"slower here is {' and '.join(alone)}, which alone proves nothing"
        )
    if open_ones:
        limit = missed([change.could_see for change in open_ones])
        text += f"; {len(open_ones)} undecided, where {limit} could have been missed"
        text += "" if strict else " (--strict fails where 10% could)"
    output.stdout().print(text, soft_wrap=True, highlight=False)


def _row(change: Change) -> tuple[str, ...]:
    return (
        change.what,
        change.measure,
        "" if change.then_ms is None else f"{change.then_ms:.3f}",
        "" if change.now_ms is None else f"{change.now_ms:.3f}",
        f"{change.ratio:.3f} [{change.low:.3f}, {change.high:.3f}]",
        change.verdict,
        "nothing" if change.could_see is None else f"{change.could_see:.1%}",
    )


def _judge(found: Verification) -> int:
    """Prints one error for all that failed, and returns the exit code."""
    reasons = list(found.parity)
    reasons += [
        f"{change.what} takes {change.ratio - 1:.1%} longer, at least {change.low - 1:.1%}, seen "
        f"in {found.attempts} of {found.attempts} runs"
        for change in found.slower
    ]
    advice = []
    if reasons:
        advice.append(
            "Where the change is meant, record it anew with `tvmdet bench --json` or --save"
        )
    if found.unable:
        reasons += found.unable
        advice.append(
            "For smaller differences record and verify longer (--duration) on a machine that does "
            "nothing else, or ask for less with --sees"
        )
    if not reasons:
        return 0
    output.error(". ".join(("; ".join(reasons), *advice)))
    return 1

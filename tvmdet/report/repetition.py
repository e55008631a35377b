"""A recorded benchmark, done again: is the present code as fast and as right as it was?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tvmdet.artifact import Artifact
from tvmdet.board.session import BoardAddress
from tvmdet.errors import InputError
from tvmdet.gpus import find_gpus
from tvmdet.report.bench import BenchOptions, bench
from tvmdet.report.bench_board import read_board
from tvmdet.report.changes import Change, changed_parity, changed_times, other_hardware
from tvmdet.report.detectable import undetectable
from tvmdet.report.machine import describe_accelerator, describe_machine
from tvmdet.report.result_format import Result
from tvmdet.report.result_subject import Machine, Setup
from tvmdet.report.results import BenchReport
from tvmdet.report.subject import sha256_of
from tvmdet.report.timing import Plan
from tvmdet.report.typed_json import from_json

__all__ = ["Verification", "VerifyOptions", "verify"]

Say = Callable[[str], None]

_NEW_FILE = "{path} was compiled anew: it is not the recorded file, but one of the same model"


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """How to repeat a benchmark.

    Attributes:
        artifact: The compiled file; None for the recorded path.
        onnx: What rivals are given; None for the recorded path.
        picture: Of end-to-end calls; None for the recorded path.
        board: To measure on; None for the recorded one, or this machine where there was none.
        other_hardware: Whether to go on where the machine is another one.
        attempts: How often a slow-down must be seen, in processes started anew, to be one.
        rounds: Timed calls of each; None for as long as the recorded run.
        duration_s: Seconds of each table; None likewise.
        complete: Whether the new result is to hold what the recorded one does besides times: the
            machine's peak and every kernel, measured anew, and the prices. Of the recorded file
            itself, the accuracy too.
        sees: A slow-down, as a share of the time, that the repetition must be able to find; None
            where it may be blind.
    """

    artifact: Path | None = None
    onnx: Path | None = None
    picture: Path | None = None
    board: BoardAddress | None = None
    other_hardware: bool = False
    attempts: int = 2
    rounds: int | None = None
    duration_s: float | None = None
    complete: bool = False
    sees: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a repetition found.

    Attributes:
        changes: Of the attempt that counts: the first without a slow-down, else the last.
        parity: What of the answers changed, in words.
        hardware: In what the machine differs from the recorded one, in words.
        notes: What else a reader must know.
        attempts: How often it was measured.
        seen_slower: The tables that were slower in every attempt.
        report: That attempt's own result.
        unable: Why a slow-down of the size asked for could have been missed, in words.
    """

    changes: tuple[Change, ...]
    parity: tuple[str, ...]
    hardware: tuple[str, ...]
    notes: tuple[str, ...]
    attempts: int
    seen_slower: frozenset[str]
    report: BenchReport
    unable: tuple[str, ...] = ()

    @property
    def slower(self) -> tuple[Change, ...]:
        """Times that are a regression: slower in this attempt, and in all before it."""
        return tuple(
            c
            for c in self.changes
            if c.measure == "time" and c.verdict == "slower" and c.what in self.seen_slower
        )

    @property
    def doubtful(self) -> tuple[Change, ...]:
        """Times that are slower for reasons of the machine, as far as can be told."""
        return tuple(change for change in self.changes if change.doubt)

    @property
    def ok(self) -> bool:
        """Whether nothing is slower beyond noise, all answers are as they were, and it shows."""
        return not self.slower and not self.parity and not self.unable

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "ok": self.ok,
            "slower": [f"{change.what}: {change.ratio:.3f}" for change in self.slower],
            "parity": list(self.parity),
            "unable": list(self.unable),
            "changes": [change.to_dict() for change in self.changes],
            "hardware": list(self.hardware),
            "notes": list(self.notes),
            "attempts": self.attempts,
        }


def verify(
    recorded: Result,
    options: VerifyOptions,
    *,
    where: str = "the result",
    say: Say = lambda _line: None,
    progress: Callable[[str, int, float], None] = lambda _what, _rounds, _elapsed_s: None,
    command: Sequence[str] = (),
) -> Verification:
    """Repeats a recorded benchmark with the present code, on this machine.

    A slow-down counts when it is seen in ``options.attempts`` runs one after the other.

    Args:
        recorded: What was recorded.
        options: How to repeat it.
        where: What to call the record in messages.
        say: Called with one line at the start of each step.
        progress: Called after each timed round with what is timed, the rounds and the seconds.
        command: What was typed, for the new result.

    Raises:
        InputError: The record cannot be repeated, a file of it is missing or another one, or this
            machine is another one and ``other_hardware`` is not set.
        TvmdetError: As :func:`tvmdet.report.bench`.
    """
    if options.attempts < 1:
        raise InputError(f"attempts is {options.attempts}; allowed: 1 or more")
    if options.sees is not None and not 0 < options.sees < math.inf:
        raise InputError(f"sees is {options.sees}; give a share of the time, such as 0.1")
    if recorded.setup is None:
        raise InputError(
            f"{where} is of schema 1 and does not say how to repeat it; record it again with "
            "`tvmdet bench FILE.tvmdet --json FILE.json`"
        )
    if not recorded.tables:
        raise InputError(
            f"{where} holds no times, as those of emulated code do not; record one with "
            "`tvmdet bench FILE.tvmdet --json FILE.json` where the code can run"
        )
    path = _file(options.artifact or Path(recorded.artifact.path), where, "--artifact")
    if options.board is not None and recorded.setup.board is None:
        raise InputError(
            f"{where} was measured without --rpc, end to end or beside rivals, as no board is; "
            "record one with `tvmdet bench --rpc --json`, or leave --rpc out"
        )
    board = options.board or _board(recorded.setup)
    machine = _this_machine(path, recorded.target.name) if board is None else _on_board(board)
    hardware = other_hardware(recorded.machine, machine)
    if hardware and not options.other_hardware:
        there = "here" if board is None else "there"
        raise InputError(
            f"{where} was recorded on another machine: {'; '.join(hardware)}. Its times say "
            f"nothing {there}; record it anew {there}, or compare all the same with "
            "--other-hardware"
        )
    _check_model(path, recorded, where)
    unchanged = sha256_of(path) == recorded.artifact.sha256
    notes = [] if unchanged else [_NEW_FILE.format(path=path)]
    again = replace(_options(recorded, recorded.setup, options, where), board=board)
    seen: frozenset[str] | None = None
    for attempt in range(1, options.attempts + 1):
        say(f"attempt {attempt} of at most {options.attempts}")
        report = bench(path, again, say=say, progress=progress, command=command)
        if options.complete and unchanged:
            report = replace(report, accuracy=recorded.accuracy)
        now = from_json(Result, report.to_dict())
        changes = tuple(changed_times(recorded, now))
        slow = frozenset(
            one.what for one in changes if one.measure == "time" and one.verdict == "slower"
        )
        seen = slow if seen is None else seen & slow
        found = Verification(
            changes=changes,
            parity=tuple(changed_parity(recorded, now)),
            hardware=tuple(hardware),
            notes=(*notes, *_other_versions(recorded, now), *now.warnings),
            attempts=attempt,
            seen_slower=seen,
            unable=() if options.sees is None else tuple(undetectable(changes, now, options.sees)),
            report=report,
        )
        # Wrong answers are wrong at once; a slow-down may have been the machine's.
        if found.parity or not found.slower:
            break
    return found


def _board(setup: Setup) -> BoardAddress | None:
    return None if setup.board is None else BoardAddress.parse(setup.board, setup.board_key)


def _on_board(board: BoardAddress) -> Machine:
    """Returns the machine behind an address."""
    return from_json(Machine, read_board(board)[1])


def _this_machine(path: Path, target: str) -> Machine:
    """Returns this machine, with the GPU that a target of a file runs on."""
    described = describe_machine()
    entry = next((one for one in Artifact.open(path).targets if one.name == target), None)
    if entry is not None and entry.gpu is not None:
        described["accelerator"] = describe_accelerator(find_gpus(), entry.gpu)
    return from_json(Machine, described)


def _file(path: Path, where: str, option: str) -> Path:
    if not path.is_file():
        raise InputError(
            f"{where} is of {path}, and there is no such file; put it there, or give the one to "
            f"measure with {option}"
        )
    return path


def _check_model(path: Path, recorded: Result, where: str) -> None:
    """Refuses a file of another model than the recorded one."""
    model = Artifact.open(path).manifest["model"].get("sha256")
    if model != recorded.model.sha256:
        raise InputError(
            f"{path} is of another model than {where}: it was compiled from {model}, and "
            f"{recorded.model.sha256} was recorded; give --artifact a file of that model, or "
            "record this one with `tvmdet bench --json`"
        )


def _options(recorded: Result, setup: Setup, options: VerifyOptions, where: str) -> BenchOptions:
    onnx, picture = options.onnx, options.picture
    if onnx is None and setup.onnx is not None:
        onnx = _file(Path(setup.onnx), where, "--onnx")
    if picture is None and setup.picture is not None:
        picture = _file(Path(setup.picture), where, "--picture")
    if picture is not None and sha256_of(picture) != setup.picture_sha256:
        raise InputError(
            f"{picture} is not the picture that {where} was measured on "
            f"(SHA-256 {setup.picture_sha256}); give that one with --picture"
        )
    plan = Plan(rounds=setup.rounds, duration_s=setup.duration_s, warm_up=setup.warm_up)
    if options.rounds is not None:
        plan = replace(plan, rounds=options.rounds)
    elif options.duration_s is not None:
        plan = replace(plan, rounds=None, duration_s=options.duration_s)
    return BenchOptions(
        onnx=onnx,
        against=setup.against,
        precisions=setup.precisions,
        batch_sizes=setup.batch_sizes,
        threads=recorded.threads,
        target=recorded.target.name,
        plan=plan,
        picture=picture,
        logs=None if setup.logs is None else Path(setup.logs),
        tolerance=setup.tolerance,
        per_layer=options.complete and setup.per_layer,
        prices=recorded.prices if options.complete else None,
        peak=options.complete and recorded.peak is not None,
    )


def _other_versions(then: Result, now: Result) -> list[str]:
    names = dict.fromkeys([*then.versions, *now.versions])
    return [
        f"{name}: {then.versions.get(name, 'none')} when recorded, now {now.versions.get(name)}"
        for name in names
        if then.versions.get(name) != now.versions.get(name)
    ]

"""The whole benchmark: check, time in turn, profile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tvmdet.artifact import Artifact
from tvmdet.board.session import BoardAddress
from tvmdet.counted import counted
from tvmdet.cpus import check_measuring_threads
from tvmdet.errors import ArtifactError, InputError
from tvmdet.report.accuracy import read_accuracy
from tvmdet.report.bench_board import bench_board
from tvmdet.report.bench_emulated import bench_emulated, emulated_entry
from tvmdet.report.contest import Contest, Side, ranked
from tvmdet.report.end_to_end import end_to_end_table
from tvmdet.report.environments import find_python
from tvmdet.report.file_target import target_of
from tvmdet.report.load import LoadWatch
from tvmdet.report.machine import describe_accelerator, describe_machine, describe_versions
from tvmdet.report.network import Network, count_other_schedules, networks_alone
from tvmdet.report.peak import Peak, measure_peak
from tvmdet.report.per_layer import LayerTable, profile_layers
from tvmdet.report.result_subject import Prices, Setup
from tvmdet.report.results import BenchReport, Table
from tvmdet.report.rivals import PRECISIONS, find_rivals
from tvmdet.report.subject import describe_subject, sha256_of
from tvmdet.report.timing import Plan, time_in_turn
from tvmdet.report.worker import WorkerError
from tvmdet.runtime.loader import Host, choose_target, read_spec

__all__ = ["BenchOptions", "bench"]


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure, and how.

    Attributes:
        onnx: What the file was compiled from; rivals are given it.
        against: Names of rivals.
        precisions: What rivals may compute in: ``fp32``, ``bf16``.
        batch_sizes: Rows of one call; one table each.
        threads: Of every contestant, at most one for each usable CPU; None for every one.
        target: Whose code to run; None for the best.
        plan: How long each table is measured.
        picture: The image file of end-to-end calls; None for a drawn one.
        per_layer: Whether to time every kernel.
        logs: A folder of tuning records to read besides the usual ones.
        tolerance: Greatest error of a contestant, as a share of an output's greatest value; None
            for what is usual in its precision.
        evaluation: What ``tvmdet eval --json`` wrote of the same file.
        prices: Of the machine.
        board: The RPC server of the machine to measure on; None for this machine.
        peak: Whether to measure what the machine can do at most, which ``per_layer`` needs.
    """

    onnx: Path | None = None
    against: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    batch_sizes: tuple[int, ...] = (1,)
    threads: int | None = None
    target: str | None = None
    plan: Plan = field(default_factory=Plan)
    picture: Path | None = None
    per_layer: bool = False
    logs: Path | None = None
    tolerance: float | None = None
    evaluation: Path | None = None
    prices: Prices | None = None
    board: BoardAddress | None = None
    peak: bool = True

    def setup(self) -> Setup:
        """Returns what a result says of them.

        Raises:
            OSError: The picture cannot be read.
        """
        picture, board = self.picture, self.board
        return Setup(
            onnx=None if self.onnx is None else str(self.onnx),
            against=self.against,
            precisions=self.precisions,
            batch_sizes=self.batch_sizes,
            picture=None if picture is None else str(picture),
            picture_sha256=None if picture is None else sha256_of(picture),
            rounds=self.plan.rounds,
            duration_s=self.plan.duration_s,
            warm_up=self.plan.warm_up,
            per_layer=self.per_layer,
            logs=None if self.logs is None else str(self.logs),
            tolerance=self.tolerance,
            board=None if board is None else str(board),
            board_key="" if board is None else board.key,
        )


def bench(
    path: str | Path,
    options: BenchOptions,
    *,
    say: Callable[[str], None] = lambda _line: None,
    progress: Callable[[str, int, float], None] = lambda _what, _rounds, _elapsed_s: None,
    command: Sequence[str] = (),
) -> BenchReport:
    """Measures a compiled file, alone or against other runtimes, here or on a board.

    Code for an ARM core, when it is named on a machine that is none, is run under QEMU: its
    instructions are counted, and nothing is timed.

    Args:
        path: A ``.tvmdet`` file.
        options: What to measure.
        say: Called with one line at the start of each step.
        progress: Called after each timed round with what is timed, the rounds and the seconds.
        command: What was typed, for the report.

    Raises:
        InputError: An option does not fit the file, or a rival is not installed.
        ArtifactError: The file cannot be run.
        TargetError: This machine cannot run it.
        ModelError: The ONNX file cannot be used.
    """
    artifact = Artifact.open(path)
    _check_batch_sizes(artifact, options)
    try:
        if options.board is not None:
            return bench_board(artifact, options.board, options, say, progress, tuple(command))
        entry = emulated_entry(artifact, options.target)
        if entry is not None:
            return bench_emulated(artifact, entry, options, say, tuple(command))
        return _Run(artifact, options, say, progress).report(tuple(command))
    except WorkerError as error:
        raise ArtifactError(
            f"{path} cannot be measured: {error}; check it with `tvmdet inspect`, or compile it "
            "again"
        ) from error


class _Run:
    def __init__(
        self,
        artifact: Artifact,
        options: BenchOptions,
        say: Callable[[str], None],
        progress: Callable[[str, int, float], None],
    ) -> None:
        self._options = options
        self._remarks: list[str] = []
        self._say = say
        self._progress = progress
        self._threads = check_measuring_threads(options.threads)
        self._artifact = artifact
        path = artifact.path
        self._host = Host.this_machine()
        chosen = choose_target(self._artifact.targets, self._host, options.target, where=str(path))
        self._target, self._gpu = chosen.name, chosen.gpu
        self._precision = chosen.precision
        self._is_raw = self._artifact.manifest["raw"] is not None
        self._check()
        given = options.evaluation
        self._accuracy = None if given is None else read_accuracy(given, path, self._target)
        # Before anything that takes long: a rival that is missing stops everything.
        self._sides = [
            Side(rival=rival, precision=precision, python=find_python(rival))
            for rival in find_rivals(options.against)
            for precision in options.precisions
        ]

    def report(self, command: tuple[str, ...]) -> BenchReport:
        machine = describe_machine()
        if self._gpu is not None:
            machine["accelerator"] = describe_accelerator(self._host.gpus, self._gpu)
        peak = None
        # What a CPU can do at most says nothing of kernels that run on a GPU.
        if (self._options.peak and self._gpu is None) or self._options.per_layer:
            self._say("measuring what this machine can do at most")
            peak = measure_peak(target_of(self._artifact, self._target), self._threads)
        with tempfile.TemporaryDirectory(prefix="tvmdet-bench-") as folder:
            tables = self._tables(Path(folder))
        layers = () if peak is None or not self._options.per_layer else self._layers(peak)
        return BenchReport(
            subject=describe_subject(self._artifact, self._target, self._host),
            threads=self._threads,
            machine=machine,
            versions=describe_versions(),
            peak=peak,
            tables=tuple(tables),
            setup=self._options.setup(),
            layers=layers,
            accuracy=self._accuracy,
            prices=self._options.prices,
            command=command,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            remarks=tuple(self._remarks),
        )

    def _check(self) -> None:
        options = self._options
        if options.against and options.onnx is None:
            raise InputError(
                "rivals run the ONNX file that the artifact was compiled from: give --onnx with "
                "--against"
            )
        if options.per_layer and self._gpu is not None:
            raise InputError(
                f"--per-layer times kernels on CPUs, and {self._target} runs on a GPU, where a "
                "call returns before its kernel has run; leave it out, or name another --target"
            )
        self._check_that_batches_are_timed()
        unknown = set(options.precisions).difference(PRECISIONS)
        if unknown:
            raise InputError(
                f"no rival computes in {min(unknown)!r}; they can in: {', '.join(PRECISIONS)}"
            )
        if options.picture is not None and not options.picture.is_file():
            raise InputError(f"there is no file {options.picture}; give --picture an image file")

    def _check_that_batches_are_timed(self) -> None:
        """Refuses sizes that no table would hold: a detector alone is timed image by image."""
        more = [size for size in self._options.batch_sizes if size != 1]
        if more and self._options.onnx is None and not self._is_raw:
            raise InputError(
                f"{self._artifact.path} is timed from the image file to the boxes, at batch 1; "
                f"give --onnx to time the network at batch {more[0]}"
            )

    def _tables(self, folder: Path) -> list[Table]:
        compiled, networks = self._networks(folder)
        if networks and not self._is_raw:
            self._remark_other_schedules(compiled)
        tables = []
        for size in dict.fromkeys(self._options.batch_sizes):
            if size in networks:
                with self._contest(networks[size], compiled) as contest:
                    contest.open(self._sides, self._say)
                    tables.append(self._network_table(contest))
                    if size == 1 and not self._is_raw:
                        tables.append(self._end_to_end(contest, folder))
            elif size == 1:
                tables.append(self._end_to_end(None, folder))
        return tables

    def _networks(self, folder: Path) -> tuple[Path, dict[int, Network]]:
        """Returns tvmdet's file of the network alone, and what rivals are given."""
        options = self._options
        return networks_alone(
            self._artifact,
            options.onnx,
            options.batch_sizes,
            folder,
            target=self._target,
            precision=self._precision,
            threads=self._threads,
            logs=options.logs,
            say=self._say,
        )

    def _remark_other_schedules(self, compiled: Path) -> None:
        """Says when the network that is timed alone is not as fast or slow as that of the file."""
        count = count_other_schedules(self._artifact, compiled, self._target)
        if count:
            advice = "give the --logs that the file was compiled with, or compile it again"
            self._remarks.append(
                f"network: {counted(count, 'kernel')} scheduled otherwise than in "
                f"{self._artifact.path}; {advice}"
            )

    def _contest(self, network: Network, compiled: Path) -> Contest:
        return Contest(
            network,
            compiled,
            self._threads,
            self._precision,
            self._options.tolerance,
            # The network of a detector is compiled again, for this target alone.
            self._target if self._is_raw else None,
        )

    def _network_table(self, contest: Contest) -> Table:
        what = f"network, batch {contest.network.batch_size}"
        self._say(f"timing {what}")
        watch = LoadWatch(worker.pid for worker in contest.workers.values())
        timings = time_in_turn(
            contest.workers,
            self._options.plan,
            lambda n, s: self._progress(what, n, s),
            watch.sample,
        )
        load = watch.read()
        entries, noise = ranked(contest.entries, timings, contest.memory())
        return Table(
            what="network",
            batch_size=contest.network.batch_size,
            entries=entries,
            load=load,
            noise=noise,
            restless=tuple(sorted(timings.restless)),
            answers=contest.answers,
        )

    def _end_to_end(self, contest: Contest | None, folder: Path) -> Table:
        self._say("timing end to end, from the image file to the boxes")
        spec = read_spec(self._artifact)
        return end_to_end_table(
            self._artifact.path,
            self._target,
            spec,
            contest,
            self._options.picture or _drawn_picture(spec.input.size_hw, folder),
            self._options.plan,
            threads=self._threads,
            precision=self._precision,
            progress=lambda n, s: self._progress("end to end", n, s),
        )

    def _layers(self, peak: Peak) -> tuple[LayerTable, ...]:
        self._say("timing every kernel")
        return tuple(
            profile_layers(self._artifact, self._target, size, peak)
            for size in self._options.batch_sizes
        )


def _check_batch_sizes(artifact: Artifact, options: BenchOptions) -> None:
    held = artifact.manifest["batch_sizes"]
    missing = sorted(set(options.batch_sizes).difference(held))
    if missing:
        raise InputError(
            f"{artifact.path} has no code for batch {missing[0]}, it has "
            f"{', '.join(map(str, held))}; compile it with --batch, or give "
            f"--batch {','.join(map(str, held))} here"
        )


def _drawn_picture(size_hw: tuple[int, int], folder: Path) -> Path:
    import cv2

    from tvmdet.compiler.images import draw_images

    path = folder / "drawn.png"
    picture = next(image for image in draw_images(size_hw) if image.name == "shapes 2")
    cv2.imwrite(str(path), picture.pixels)
    return path

"""The benchmark of a compiled file on another machine, over TVM's RPC.

Two copies of the code are loaded there, each in a process of its own, and called in turn; the
board's own clock times them. What a result says of the machine and of its load is the board's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import tvmdet
from tvmdet.artifact import Artifact, TargetEntry
from tvmdet.board.kernel_files import KernelFiles
from tvmdet.board.session import BoardAddress, board_threads, connect
from tvmdet.counted import counted
from tvmdet.cpus import check_measuring_threads
from tvmdet.errors import ArtifactError, InputError, TargetError
from tvmdet.report.accuracy import read_accuracy
from tvmdet.report.agreement import Agreement
from tvmdet.report.answers import sample_found, sample_outputs
from tvmdet.report.board_contestant import BoardContestant
from tvmdet.report.board_machine import board_host, describe_board, why_emulated
from tvmdet.report.contest import AGAIN, OURS, judge, one_line, ranked, right_outputs
from tvmdet.report.load import LoadWatch
from tvmdet.report.machine import describe_versions
from tvmdet.report.network import Network, make_inputs, networks_alone
from tvmdet.report.pipeline import Found
from tvmdet.report.results import BenchReport, Entry, Table
from tvmdet.report.subject import describe_subject
from tvmdet.report.timing import time_in_turn
from tvmdet.report.worker import WorkerError
from tvmdet.runtime.loader import Host, choose_target, read_spec

if TYPE_CHECKING:
    from tvmdet.report.bench import BenchOptions

__all__ = ["bench_board", "read_board"]

_NOTE: Final = (
    "pixels at the input's size in, boxes out, by the board's clock: normalisation, box decoding "
    "and suppression are in it, decoding and resizing of image files are not"
)

Say = Callable[[str], None]
Progress = Callable[[str, int, float], None]


def read_board(address: BoardAddress) -> tuple[Host, dict[str, Any]]:
    """Returns what a board can run, and what a result says of it.

    Raises:
        InputError: It is emulated, so that its times say nothing.
        TargetError: No RPC server of the board kit answers.
    """
    files = KernelFiles(connect(address), address)
    if why := why_emulated(files):
        raise InputError(
            f"what answers at {address} is emulated ({why}): its times are no latencies of "
            "anything; give --rpc a real board, or leave it out to have instructions counted"
        )
    return board_host(files), describe_board(files)


def bench_board(
    artifact: Artifact,
    address: BoardAddress,
    options: BenchOptions,
    say: Say,
    progress: Progress,
    command: tuple[str, ...],
) -> BenchReport:
    """Measures a compiled file on a board, alone.

    A network without a head is timed from arrays to arrays. A detector is timed from pixels to
    boxes, and with an ONNX file its network alone as well, compiled again and compared with ONNX
    Runtime on this machine.

    Args:
        artifact: The compiled file.
        address: Of the board's RPC server.
        options: What to measure.
        say: Called with one line at the start of each step.
        progress: Called after each timed round with what is timed, the rounds and the seconds.
        command: What was typed, for the report.

    Raises:
        InputError: An option asks for what is not done on a board, or the board is emulated.
        TargetError: No RPC server answers, or the file holds nothing that the board can run.
        ArtifactError: The board cannot load or run the code.
        ModelError: The ONNX file cannot be used.
    """
    _check(options)
    say(f"asking the board at {address} what it is")
    host, machine = read_board(address)
    chosen = choose_target(artifact.targets, host, options.target, where=str(artifact.path))
    threads = board_threads(address)
    if options.threads is not None:
        cpus = machine["cpus_usable"] or threads
        threads = check_measuring_threads(options.threads, cpus, "the board")
    given = options.evaluation
    accuracy = None if given is None else read_accuracy(given, artifact.path, chosen.name)
    with tempfile.TemporaryDirectory(prefix="tvmdet-bench-") as folder:
        run = _Run(artifact, chosen, address, options, threads, say, progress)
        tables = run.tables(Path(folder))
    return BenchReport(
        subject=describe_subject(artifact, chosen.name, host),
        threads=threads,
        machine=machine,
        versions=describe_versions(),
        peak=None,
        tables=tables,
        setup=options.setup(),
        accuracy=accuracy,
        prices=options.prices,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _check(options: BenchOptions) -> None:
    asked = {
        "--against": options.against,
        "--per-layer": options.per_layer,
        "--picture": options.picture is not None,
    }
    named = [name for name, value in asked.items() if value]
    if named:
        raise InputError(
            "over --rpc only compiled code is called, with arrays, and by itself; leave out "
            f"{' and '.join(named)}, or install tvmdet on the board and measure there"
        )


class _Run:
    def __init__(
        self,
        artifact: Artifact,
        entry: TargetEntry,
        address: BoardAddress,
        options: BenchOptions,
        threads: int,
        say: Say,
        progress: Progress,
    ) -> None:
        self._artifact, self._entry, self._address = artifact, entry, address
        self._options, self._threads = options, threads
        self._say, self._progress = say, progress
        self._precision = entry.precision

    def tables(self, folder: Path) -> tuple[Table, ...]:
        compiled, networks = networks_alone(
            self._artifact,
            self._options.onnx,
            self._options.batch_sizes,
            folder,
            target=self._entry.name,
            precision=self._precision,
            threads=self._threads,
            logs=self._options.logs,
            say=self._say,
        )
        is_raw = self._artifact.manifest["raw"] is not None
        alone = self._artifact if is_raw else Artifact.open(compiled)
        found = []
        for size in self._options.batch_sizes:
            if size in networks:
                found.append(self._network(alone, networks[size]))
            if not is_raw:
                found.append(self._detector(size))
        return tuple(found)

    def _network(self, alone: Artifact, network: Network) -> Table:
        size = network.batch_size
        inputs = make_inputs(network.signature)
        right = right_outputs(network, inputs, self._threads, self._say)
        call = _Call(
            what="network",
            batch_size=size,
            artifact=alone,
            target=next(one for one in alone.targets if one.name == self._entry.name),
            function=f"run_b{size}",
            arguments=tuple(inputs.values()),
        )
        names = [output["name"] for output in network.signature["outputs"]]

        def read(arrays: Sequence[Any]) -> _Read:
            outputs = dict(zip(names, arrays, strict=True))
            found = None
            if right is not None:
                found = judge(outputs, right, network, self._precision, self._options.tolerance)
            return _Read(answers=sample_outputs(outputs), agreement=found)

        return self._table(call, read, network.flop)

    def _detector(self, size: int) -> Table:
        spec = read_spec(self._artifact)
        limits = (spec.postprocess.score_threshold, spec.postprocess.iou_threshold)
        pictures = np.repeat(_drawn_pixels(spec.input.size_hw)[None], size, axis=0)
        call = _Call(
            what="array to boxes",
            batch_size=size,
            artifact=self._artifact,
            target=self._entry,
            function=f"detect_b{size}",
            arguments=(pictures, np.array(limits, np.float32)),
        )
        return self._table(call, _read_boxes)

    def _table(self, call: _Call, read: _Reader, flop: int | None = None) -> Table:
        try:
            return self._timed(call, read, flop)
        except WorkerError as error:
            raise TargetError(
                f"the board at {self._address} is gone: {one_line(error)}; start its server again "
                "(docs/arm.md)"
            ) from error

    def _timed(self, call: _Call, read: _Reader, flop: int | None) -> Table:
        title = f"{call.what}, batch {call.batch_size}"
        self._say(f"sending to the board, twice: {title}")
        with ExitStack() as stack:
            copies: dict[str, BoardContestant] = {}
            for name in (OURS, AGAIN):
                copies[name] = BoardContestant(
                    call.artifact,
                    call.target,
                    self._address,
                    call.function,
                    call.arguments,
                    self._threads,
                )
                stack.callback(copies[name].close)
            found, again = (read(one.run()) for one in copies.values())
            if again.answers != found.answers:
                raise ArtifactError(
                    f"{call.artifact.path} answers otherwise in another process on the board at "
                    f"{self._address}: {title}; compile it again, and check the board's memory"
                )
            entry = Entry(
                name=OURS,
                precision=self._precision,
                version=f"tvmdet {tvmdet.__version__}",
                settings=f"compiled for {call.target.name}, threads={self._threads}",
                flop=flop,
                agreement=found.agreement,
                problem=found.problem,
            )
            timed = {} if entry.problem else copies
            self._say(f"timing {title}")
            # Of a third process, so that asking disturbs neither copy more than the other.
            files = KernelFiles(connect(self._address), self._address)
            own = int(files.text("/proc/self/stat").split()[0])
            pids = [own, *(one.pid for one in copies.values())]
            watch = LoadWatch(pids, files, files.time_yardstick)
            timings = time_in_turn(
                timed, self._options.plan, lambda n, s: self._progress(title, n, s), watch.sample
            )
            load = watch.read()
            memory = {name: timed[name].memory_peak_bytes() for name in timings.seconds}
        entries, noise = ranked({OURS: entry}, timings, memory)
        return Table(
            what=call.what,
            batch_size=call.batch_size,
            entries=entries,
            load=load,
            noise=noise,
            restless=tuple(sorted(timings.restless)),
            note=found.note,
            answers=found.answers,
        )


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What is timed: a function of a compiled file, with its arguments.

    Attributes:
        what: As tables are called.
        batch_size: Rows of one call.
        artifact: The file.
        target: Whose code of it.
        function: Its name.
        arguments: Arrays.
    """

    what: str
    batch_size: int
    artifact: Artifact
    target: TargetEntry
    function: str
    arguments: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What a call returned, as a table keeps it.

    Attributes:
        answers: For a repetition to compare.
        agreement: With what is right; None where nobody knows.
        note: What a reader must know of the table.
    """

    answers: Mapping[str, Sequence[float]]
    agreement: Agreement | None = None
    note: str = ""

    @property
    def problem(self) -> str:
        """Why it is not to be timed; empty when it is."""
        wrong = self.agreement is not None and not self.agreement.ok
        return f"wrong: {one_line(self.agreement)}" if wrong else ""


_Reader = Callable[[Sequence[Any]], _Read]


def _read_boxes(arrays: Sequence[Any]) -> _Read:
    """Reads what a detector returned for its first picture; rows past the count are whatever."""
    boxes, scores, classes, counts = arrays[:4]
    kept = slice(int(counts[0]))
    found = Found(
        boxes_xyxy=boxes[0, kept],
        scores=scores[0, kept],
        class_ids=classes[0, kept].astype(np.int64),
    )
    return _Read(
        answers=sample_found(found),
        note=f"a drawn picture, {counted(len(found.scores), 'box', 'boxes')}; {_NOTE}",
    )


def _drawn_pixels(size_hw: tuple[int, int]) -> Any:
    """Returns the picture of end-to-end calls, stretched: uint8 ``[H, W, 3]``, BGR."""
    import cv2

    from tvmdet.compiler.images import draw_images

    picture = next(image for image in draw_images(size_hw) if image.name == "shapes 2")
    return cv2.resize(picture.pixels, size_hw[::-1], interpolation=cv2.INTER_AREA)

"""Tuning on a board: what is measured there, and a board that dies and comes back."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduled_kernels import only_kernel
from tvm import relax
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate
from tvmdet.schedules.base import fingerprint
from tvmdet.targets import Target, get_target

from tvmdet.board.emulator import Emulator, why_no_emulator
from tvmdet.board.session import BoardAddress
from tvmdet.errors import TuningError
from tvmdet.tuning import MeasureOptions, TuningProgress, tune_tasks
from tvmdet.tuning.measure import Built, Failure, Measured, Measurer, Rival
from tvmdet.tuning.store import TuningStore
from tvmdet.tuning.task import Task

pytestmark = pytest.mark.arm

TARGET = get_target("cortex-a76")
FAST = MeasureOptions(measure_s=0.001, builders=1, confirm_share=0.0, run_timeout_s=60.0)


@pytest.fixture(scope="module")
def task() -> Task:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1, 6, 8, 8)).astype("float32")
    weight = rng.standard_normal((16, 1, 1, 8)).astype("float32")

    def emit(builder: Any, x: Any) -> Any:
        conv = relax.op.nn.conv2d(x, relax.const(weight), data_layout="NHWC", kernel_layout="OHWI")
        return builder.emit(conv)

    kernel = only_kernel(emit, [data], TARGET)
    return Task(
        func=kernel.func,
        fingerprint=fingerprint(kernel.func),
        anchor=kernel.workload.anchor,
        template=kernel.template,
        workload=kernel.workload,
        decisions=kernel.decisions,
        count=1,
    )


@pytest.fixture(autouse=True)
def _needs_an_emulator() -> None:
    if missing := why_no_emulator():
        pytest.skip(missing)


def tune(
    task: Task,
    logs: Path,
    board: BoardAddress,
    budget_s: float,
    progress: Any = None,
    target: Target = TARGET,
) -> Any:
    return tune_tasks(
        [task],
        target=target,
        store=TuningStore(logs, writable=logs, cpu="pi"),
        budget_s=budget_s,
        options=FAST,
        min_gain=0.0,
        progress=progress,
        board=board,
    )


def records(logs: Path) -> list[dict[str, Any]]:
    lines = [path.read_text().splitlines() for path in logs.rglob("*.jsonl")]
    return [json.loads(line) for group in lines for line in group]


@pytest.mark.parametrize("away_s", [0.0, 3.0])
def test_a_board_that_dies_costs_no_record(task: Task, tmp_path: Path, away_s: float) -> None:
    """Killed as by a power cut while trials go on; it starts again on its port."""
    first = Emulator(TARGET.tvm["mcpu"], key="pi")
    address = BoardAddress(host="127.0.0.1", port=first.port, key="pi")
    revived: list[Emulator] = []

    def die() -> None:
        first.close()
        time.sleep(away_s)
        revived.append(Emulator(TARGET.tvm["mcpu"], key="pi", port=address.port))

    death = threading.Thread(target=die)

    def progress(now: TuningProgress) -> None:
        if now.trials == 4 and not death.ident:
            death.start()  # beside the next trial

    try:
        report = tune(task, tmp_path, address, 240.0, progress)
    finally:
        death.join()
        first.close()
        for board in revived:
            board.close()
    assert revived
    found = records(tmp_path)
    # A connection that was lost in mid-run says little of its candidate, which is tried again.
    ran = [record for record in found if "error" not in record]
    assert {record["error_kind"] for record in found if "error" in record} <= {"lost"}
    assert len(found) - len(ran) <= 1, "one trial was running"
    assert {record["target"] for record in found} == {TARGET.name}
    assert {record["cpu"] for record in found} == {"pi"}
    assert report.trials == len(found)
    assert len(ran) >= len(task.decisions) - 1


def test_a_board_that_answers_and_cannot_run_kernels_ends_the_run(
    task: Task, tmp_path: Path
) -> None:
    """A kit without kernels' runtime functions, or the wrong address: no candidate's fault."""
    x86 = dataclasses.replace(TARGET, tvm={**get_target("x86-64-v3").tvm}, arch="x86_64")
    with Emulator(TARGET.tvm["mcpu"]) as board:
        address = BoardAddress(host="127.0.0.1", port=board.port)
        with pytest.raises(TuningError, match=r"answers and cannot run kernels: .* kit again"):
            tune(task, tmp_path, address, 60.0, target=x86)
    assert records(tmp_path) == []


def test_tuning_goes_on_from_the_records(task: Task, tmp_path: Path) -> None:
    with Emulator(TARGET.tvm["mcpu"]) as board:
        address = BoardAddress(host="127.0.0.1", port=board.port)
        some: list[int] = []

        def stop(now: TuningProgress) -> None:
            some.append(now.trials)
            if now.trials == 3:
                raise KeyboardInterrupt

        assert tune(task, tmp_path, address, 240.0, stop).stopped == "interrupted"
        before = len(records(tmp_path))
        report = tune(task, tmp_path, address, 240.0)
    assert before >= 3
    assert report.known_before == 1
    assert before + report.trials == len(records(tmp_path)) <= len(task.decisions)


@pytest.fixture
def lacks(tmp_path: Path) -> Path:
    """A library with dot products of bytes: an illegal instruction on a Cortex-A72."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no C compiler for aarch64")
    source = tmp_path / "lacks.s"
    source.write_text(
        ".arch armv8.2-a+dotprod\n.globl __tvm_ffi_main\n__tvm_ffi_main:\n"
        "sdot v0.4s, v1.16b, v2.16b\nmov w0, #0\nret\n"
    )
    library = tmp_path / "lacks.so"
    command = ["aarch64-linux-gnu-gcc", "-shared", "-nostdlib", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


def test_a_candidate_that_the_core_cannot_run_ends_itself_alone(lacks: Path, task: Task) -> None:
    target = get_target("cortex-a72")
    with Emulator("cortex-a72") as board:
        address = BoardAddress(host="127.0.0.1", port=board.port)
        with Measurer(target=target, threads=1, options=FAST, board=address) as measurer:
            failed = measurer.run(Built(path=lacks, args=()))
            assert isinstance(failed, Failure)
            assert failed.kind == "lost"
            scheduled = task.template.apply(task.func, task.workload, task.decisions[0])
            arguments = ArgInfo.from_prim_func(scheduled.mod["main"])
            (built,) = measurer.build([MeasureCandidate(scheduled, arguments)])
            assert isinstance(built, Built)
            alone = measurer.run(built)
            assert isinstance(alone, Measured)
            rival = Rival(built=built, cost_s=2.0 * alone.cost_s)
            in_turn = measurer.run(built, rival=rival)
    assert min(alone.latencies_s) > 0
    assert isinstance(in_turn, Measured)
    assert in_turn.pace is not None
    assert in_turn.pace > 0

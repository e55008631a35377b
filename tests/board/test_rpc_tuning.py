"""Tuning on a board: what is measured there, and a board that dies and comes back."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduled_kernels import only_kernel
from tvm import relax
from tvmdet.schedules.base import fingerprint
from tvmdet.targets import get_target

from tvmdet.board.emulator import Emulator, why_no_emulator
from tvmdet.board.session import BoardAddress
from tvmdet.tuning import MeasureOptions, TuningProgress, tune_tasks
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


def tune(task: Task, logs: Path, board: BoardAddress, budget_s: float, progress: Any = None) -> Any:
    return tune_tasks(
        [task],
        target=TARGET,
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


def test_a_board_that_dies_costs_one_trial(task: Task, tmp_path: Path) -> None:
    """The board is killed as by a power cut in mid-run and starts again on its port."""
    first = Emulator(TARGET.tvm["mcpu"], key="pi")
    address = BoardAddress(host="127.0.0.1", port=first.port, key="pi")
    trials_at_death: list[int] = []
    revived: list[Emulator] = []

    def revive() -> None:
        revived.append(Emulator(TARGET.tvm["mcpu"], key="pi", port=address.port))

    timer = threading.Timer(3.0, revive)

    def progress(now: TuningProgress) -> None:
        if now.trials == 4 and not trials_at_death:
            trials_at_death.append(now.trials)
            first.close()
            timer.start()

    try:
        report = tune(task, tmp_path, address, 240.0, progress)
    finally:
        timer.join()
        first.close()
        for board in revived:
            board.close()
    assert trials_at_death and revived
    found = records(tmp_path)
    assert all("error" not in record for record in found), "a dead board is no candidate's fault"
    assert {record["target"] for record in found} == {TARGET.records}
    assert {record["cpu"] for record in found} == {"pi"}
    assert report.trials == len(found)
    assert len(task.decisions) - 1 <= len(found) <= len(task.decisions)


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


def test_a_candidate_that_the_core_cannot_run_ends_itself_alone(tmp_path: Path) -> None:
    """Dot products of bytes on a Cortex-A72: an illegal instruction there."""
    import shutil
    import subprocess

    from arm_kernels import Board

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
    board = Board("cortex-a72")
    try:
        board.session.upload(bytearray(library.read_bytes()), "lacks.so")
        with pytest.raises(Exception, match="kShutdown"):
            board.session.load_module("lacks.so")["main"]()
        board.reconnect()
        board.session.get_function("runtime.NumThreads")()
    finally:
        board.emulator.close()

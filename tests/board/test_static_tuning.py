"""Tuning by predicted cycles: what is tried, what is written down, and what wins over it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from scheduled_kernels import lower_network, only_kernel
from tvm import relax
from tvmdet.schedules.base import Decision, Template, Workload, fingerprint, schedule_of
from tvmdet.targets import get_target

from tvmdet.board.count_plugin import why_no_counts
from tvmdet.board.pipeline_model import PipelineModel, find_model, why_no_model
from tvmdet.board.prediction import predictor_name
from tvmdet.board.session import BoardAddress
from tvmdet.compiler.schedule import schedule_kernels
from tvmdet.errors import InputError, TargetError
from tvmdet.tuning import MeasureOptions, TuningRecord, TuningStore, tune, tune_tasks
from tvmdet.tuning.predict import busiest_share
from tvmdet.tuning.store import board_cpu
from tvmdet.tuning.task import Task

pytestmark = pytest.mark.arm

TARGET = get_target("cortex-a76")
FAST = MeasureOptions(builders=1, confirm_share=0.0, run_timeout_s=30.0)


def emit(builder: Any, x: Any) -> Any:
    weight = np.random.default_rng(0).standard_normal((16, 1, 1, 8)).astype("float32")
    return builder.emit(
        relax.op.nn.conv2d(x, relax.const(weight), data_layout="NHWC", kernel_layout="OHWI")
    )


DATA = np.random.default_rng(1).standard_normal((1, 6, 8, 8)).astype("float32")


@pytest.fixture(scope="module")
def model() -> PipelineModel:
    if missing := why_no_counts() or why_no_model():
        pytest.skip(missing)
    return find_model(TARGET.tvm["mcpu"])


@pytest.fixture(scope="module")
def task() -> Task:
    kernel = only_kernel(emit, [DATA], TARGET)
    return Task(
        func=kernel.func,
        fingerprint=fingerprint(kernel.func),
        anchor=kernel.workload.anchor,
        template=kernel.template,
        workload=kernel.workload,
        decisions=kernel.decisions[:6],
        count=1,
    )


def predict(tasks: list[Task], logs: Path, model: PipelineModel, **more: Any) -> Any:
    store = TuningStore(writable=logs, cpu=predictor_name(model), predicted=True)
    options = {"budget_s": 100.0, "options": FAST, "min_gain": 0.0, "threads": 4, **more}
    return tune_tasks(tasks, target=TARGET, store=store, model=model, **options)


def test_every_candidate_is_predicted_once_and_alike(
    task: Task, model: PipelineModel, tmp_path: Path
) -> None:
    seen: list[Any] = []
    report = predict([task], tmp_path / "a", model, progress=seen.append)
    assert (report.trials, report.stopped) == (len(task.decisions), "exhausted")
    assert report.latency_before_s is report.latency_after_s is None
    assert 0 < report.predicted_cycles <= report.predicted_cycles_before
    assert report.predicted_by == predictor_name(model)
    assert seen[-1].latency_s is None
    assert seen[-1].predicted_cycles == report.predicted_cycles

    lines = (tmp_path / "a" / TARGET.name / "records.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert line["version"] == 3, "what earlier versions of tvmdet pass over"
        assert "latencies_s" not in line
        assert line["cpu"] == predictor_name(model)
    found = TuningStore(tmp_path / "a").records(TARGET.name)
    assert all(record.predicted and record.score_s == float("inf") for record in found)
    assert min(record.cost for record in found) == report.predicted_cycles
    assert len({record.predicted_cycles for record in found}) > 1

    again = predict([task], tmp_path / "a", model)
    assert (again.known_before, again.trials) == (1, 0)
    predict([task], tmp_path / "b", model)
    other = TuningStore(tmp_path / "b").records(TARGET.name)
    costs = {record.decision: record.cost for record in found}
    for record in other:
        assert record.cost == pytest.approx(costs[record.decision], rel=0.01)


def test_a_candidate_that_ends_its_board_is_a_failure_of_its_own(
    task: Task, model: PipelineModel, tmp_path: Path
) -> None:
    class Deadly(Template):
        name = "test.deadly"

        def match(self, func: Any, target: Any) -> Workload | None:
            return task.workload

        def decisions(self, workload: Any, target: Any) -> list[Decision]:
            return [Decision.of(self.name, kind=kind) for kind in ("fine", "deadly", "endless")]

        def apply(self, func: Any, workload: Any, decision: Decision) -> Any:
            if decision["kind"] == "fine":
                return task.template.apply(func, task.workload, task.decisions[0])
            schedule = schedule_of(func)
            name = "abort" if decision["kind"] == "deadly" else "pause"
            call = tvm.tirx.Evaluate(tvm.tirx.call_extern("int32", name))
            main = schedule.mod["main"]
            body = main.body
            block = body.block
            changed = type(block)(
                block.iter_vars,
                block.reads,
                block.writes,
                block.name_hint,
                tvm.tirx.SeqStmt([call, block.body]),
                block.init,
                block.alloc_buffers,
            )
            realized = type(body)(body.iter_values, body.predicate, changed)
            return tvm.s_tir.Schedule(tvm.IRModule({"main": main.with_body(realized)}))

    template = Deadly()
    deadly = dataclasses.replace(
        task, template=template, decisions=tuple(template.decisions(None, None))
    )
    options = dataclasses.replace(FAST, run_timeout_s=3.0)
    report = predict([deadly], tmp_path, model, options=options)
    found = TuningStore(tmp_path).records(TARGET.name)
    fates = {record.decision["kind"]: record.error_kind for record in found}
    assert fates == {"fine": "", "deadly": "crash", "endless": "timeout"}
    assert report.predicted_cycles > 0


def test_measured_records_win_over_predicted_ones(tmp_path: Path, task: Task) -> None:
    module = lower_network(emit, [DATA], TARGET)
    fast, slow, *_ = task.decisions[1:]

    def record(decision: Decision, **more: Any) -> TuningRecord:
        return TuningRecord(
            target=TARGET.name,
            fingerprint=task.fingerprint,
            anchor=task.anchor,
            decision=decision,
            threads=4,
            **more,
        )

    store = TuningStore(writable=tmp_path, cpu=board_cpu(TARGET))
    store.append(record(slow, predicted_cycles=2e3, cpu="old model", time=1.0))
    store.append(record(fast, predicted_cycles=5e3, cpu="new model", time=2.0))
    (name,) = [v.name_hint for v in module.get_global_vars() if v.name_hint != "main"]

    def chosen() -> tuple[Decision, str]:
        kernels = schedule_kernels(module, TARGET, store, 4)
        assert sum(kernels.sources.values()) == 1
        return kernels.decisions[name], kernels.facts[name]["source"]

    assert chosen() == (fast, "predicted"), "models do not compare: the latest counts"
    store.append(
        dataclasses.replace(record(slow, latencies_s=(1.0,)), fingerprint="another epilogue")
    )
    assert chosen() == (slow, "borrowed"), "measured, if with another epilogue"
    store.append(record(task.decisions[0], latencies_s=(3.0,), cpu="whatever"))
    assert chosen() == (task.decisions[0], "elsewhere")


@pytest.mark.parametrize(
    ("extent", "threads", "share"),
    [
        (8, 4, 0.25),
        (9, 4, 3 / 9),
        (1, 4, 1.0),
        (3, 8, 1 / 3),
        (256, 4, 64 / 256),
        (1000, 3, 336 / 1000),
    ],
)
def test_work_is_shared_as_threads_share_it(extent: int, threads: int, share: float) -> None:
    from tvm import te

    x = te.placeholder((extent, 32), name="x")
    y = te.compute(x.shape, lambda i, j: x[i, j] + 1.0, name="y")
    schedule = tvm.s_tir.Schedule(te.create_prim_func([x, y]))
    assert busiest_share(schedule.mod["main"], threads) == 1.0
    outer, inner = schedule.get_loops(schedule.get_sblock("y"))
    schedule.vectorize(inner)
    schedule.parallel(outer)
    assert busiest_share(schedule.mod["main"], threads) == pytest.approx(share)


def test_what_cannot_be_predicted_is_refused() -> None:
    with pytest.raises(InputError, match="no cost model is called 'guess'; there are: measured"):
        tune(None, target="cortex-a76", cost_model="guess")  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="for ARM cores only, and x86-64-v3 is none"):
        tune(None, target="x86-64-v3", cost_model="static")
    board = BoardAddress(host="127.0.0.1", port=1)
    with pytest.raises(InputError, match="measures nothing, and a board was named"):
        tune(None, target="cortex-a76", cost_model="static", board=board)

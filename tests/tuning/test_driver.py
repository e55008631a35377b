"""Whole tuning runs: budgets, resumption, failures, interruption."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import kernels
import pytest
from tvmdet.targets import get_target

from tvmdet.cpus import usable_cpu_count
from tvmdet.errors import InputError, TargetError
from tvmdet.tuning import TuningStore, tune, tune_tasks

TARGET = get_target("host")
SCRIPT = Path(kernels.__file__)


def run(tasks, store, budget_s=100.0, **more):
    options = {"target": TARGET, "options": kernels.FAST, "min_gain": 0.0, **more}
    return tune_tasks(tasks, store=store, budget_s=budget_s, **options)


def kinds(*names, **more):
    return kernels.make_task(kernels.Kinds(*names), kernels.doubled, **more)


def test_nothing_to_tune_is_a_report(tmp_path):
    report = run([kinds("fine")], TuningStore(tmp_path))
    assert (report.tasks, report.untunable, report.trials) == (0, 1, 0)
    assert report.latency_before_s is None
    assert not report.interrupted


def test_every_fate_of_a_candidate_is_recorded_and_a_broken_task_ends_nothing(tmp_path):
    store, seen = TuningStore(tmp_path), []
    good = kinds("fine", "unschedulable", "aborts", "lacks", "hangs")
    bad = kinds("aborts", "unschedulable", key="bad")
    options = dataclasses.replace(kernels.FAST, run_timeout_s=1.0)
    report = run([good, bad], store, progress=seen.append, options=options)

    assert (report.tasks, report.trials, report.new) == (2, 7, 1)
    assert report.stopped == "exhausted"
    (failed,) = report.failed
    assert failed[0] == bad.anchor
    records = {(r.fingerprint, r.decision["kind"]): r for r in store.records(TARGET.name)}
    found = {key[1]: r.error_kind for key, r in records.items() if key[0] == good.fingerprint}
    assert found.pop("lacks") in ("run", "crash")
    assert found == {
        "fine": "",
        "unschedulable": "schedule",
        "aborts": "crash",
        "hangs": "timeout",
    }
    last = seen[-1]
    assert (last.trials, last.tasks_total, last.tasks_done) == (7, 2, 2)
    assert last.known == "0 of 2 tasks already known"
    assert (
        last.latency_s
        == report.latency_after_s
        == store.best(TARGET.name, good.fingerprint).score_s
    )
    assert json.loads(json.dumps(report.to_dict()))["failed"][0]["anchor"] == bad.anchor

    # Again: what is settled is left alone, the time-out alone gets its second chance.
    again = run([good, bad], TuningStore(tmp_path), progress=seen.append, options=options)
    assert (again.trials, again.known_before, len(again.failed)) == (1, 1, 1)
    assert seen[-1].known == "1 of 2 tasks already known"
    assert run([good, bad], TuningStore(tmp_path), options=options).trials == 0


def test_a_template_or_model_that_breaks_is_reported_and_the_others_are_tuned(
    tmp_path, monkeypatch
):
    from tvmdet.tuning.search import TaskSearch

    broken, good = kinds("fine", "other", key="broken"), kinds("fine", "third", key="good")
    real = TaskSearch.learn

    def learn(search, batch, results):
        if search.task is broken:
            raise ValueError("no features")
        real(search, batch, results)

    monkeypatch.setattr(TaskSearch, "learn", learn)
    report = run([broken, good], TuningStore(tmp_path))
    assert report.failed == ((broken.anchor, "ValueError: no features"),)
    assert (report.new, report.trials) == (2, 3)
    assert report.latency_after_s is not None


def test_the_budget_ends_the_run_and_a_later_run_goes_on(tmp_path):
    first = run([kernels.tiles_task()], TuningStore(tmp_path), budget_s=4.0)
    assert first.stopped in ("budget", "exhausted")
    assert first.seconds < 60
    second = run([kernels.tiles_task()], TuningStore(tmp_path))
    assert first.trials + second.trials == 64
    assert second.stopped == "exhausted"
    assert second.latency_before_s == (first.latency_after_s or second.latency_before_s)
    assert second.latency_after_s <= second.latency_before_s


def test_a_budget_that_is_spent_before_anything_is_tried_is_told(tmp_path):
    started = time.monotonic() - 5.0  # as if listing the kernels had taken so long
    tasks = [kernels.tiles_task(), kinds("fine", "other")]
    report = run(tasks, TuningStore(tmp_path), budget_s=4.0, started=started)
    assert (report.trials, report.stopped, report.too_short) == (0, "budget", True)
    assert report.spent_s["list"] >= 5.0
    assert report.least_budget_s > report.spent_s["list"]
    assert not run([kinds("fine", "other")], TuningStore(tmp_path)).too_short


def test_a_run_ends_when_nothing_promises_enough(tmp_path):
    report = run([kernels.tiles_task()], TuningStore(tmp_path), min_gain=0.9)
    assert (report.stopped, report.trials) == ("converged", 1)


def test_the_leaders_are_measured_again_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr("tvmdet.tuning.planner._CLOSE", 1e6)  # how close is chance: all count
    store = TuningStore(tmp_path)
    same, other = kinds("fine", "fine too", "lacks"), kernels.tiles_task()
    options = dataclasses.replace(kernels.FAST, confirm_share=0.5)
    report = run([same, other], store, options=options)
    assert report.stopped == "exhausted"
    measured = Counter((r.fingerprint, r.decision) for r in store.records(TARGET.name) if r.ok)
    again = {key for key, count in measured.items() if count == 2}
    assert again
    assert max(measured.values()) == 2
    assert {decision["kind"] for key, decision in again if key == same.fingerprint} <= {
        "fine",
        "fine too",
    }
    assert report.trials == 67 + len(again)
    # What was timed last counts.
    last = {r.decision: r for r in store.records(TARGET.name) if r.fingerprint == other.fingerprint}
    best = store.best(TARGET.name, other.fingerprint)
    assert best.cost == min(record.cost for record in last.values())


def written(logs):
    path = logs / TARGET.name / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start_tuning(logs, budget="100"):
    command = [sys.executable, str(SCRIPT), str(logs), budget]
    scratch = logs / "scratch"  # a killed tuner leaves its temporary folder behind
    scratch.mkdir(exist_ok=True)
    env = os.environ | {"TMPDIR": str(scratch)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def wait_for_records(process, logs, count, limit_s=60.0):
    end = time.monotonic() + limit_s
    while written(logs) < count and process.poll() is None:
        assert time.monotonic() < end, "the tuner wrote nothing"
        time.sleep(0.01)


def killed_at_random(logs, times, step):
    rng = random.Random(0)
    for number in range(1, times + 1):
        process = start_tuning(logs)
        wait_for_records(process, logs, number * step)
        time.sleep(rng.random() * 0.3)
        process.kill()
        process.wait()
        process.stdout.close()


def test_killed_at_any_moment_a_run_resumes_without_loss_or_repetition(tmp_path):
    killed_at_random(tmp_path, times=3, step=8)
    before = written(tmp_path)
    assert before >= 24
    store = TuningStore(tmp_path)
    report = run([kernels.tiles_task()], store)
    tried = Counter(str(r.decision) for r in store.records(TARGET.name))
    assert store.skipped_malformed == 0
    assert report.trials == 64 - before
    assert len(tried) == 64
    assert set(tried.values()) == {1}


@pytest.mark.slow
def test_killed_many_times(tmp_path):
    killed_at_random(tmp_path, times=30, step=2)
    store = TuningStore(tmp_path)
    run([kernels.tiles_task()], store)
    tried = Counter(str(r.decision) for r in store.records(TARGET.name))
    assert len(tried) == sum(tried.values()) == 64


def children_of(pid):
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def test_ctrl_c_ends_the_run_cleanly_and_no_worker_stays_behind(tmp_path):
    process = start_tuning(tmp_path)
    wait_for_records(process, tmp_path, 3)
    workers = children_of(process.pid)
    assert workers
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    stopped, trials = output.split()
    assert (process.returncode, stopped) == (0, "interrupted")
    assert int(trials) == written(tmp_path) == len(TuningStore(tmp_path).records(TARGET.name))
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]


def test_a_killed_tuner_leaves_no_worker_behind(tmp_path):
    process = start_tuning(tmp_path)
    wait_for_records(process, tmp_path, 1)
    workers = children_of(process.pid)
    process.kill()
    process.communicate()
    end = time.monotonic() + 30
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < end, "a worker outlived its tuner"
        time.sleep(0.05)
    assert workers


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a zombie waits for whoever adopted it


def test_a_target_that_this_machine_is_not_is_refused_before_anything_starts(tmp_path):
    alien = dataclasses.replace(TARGET, name="alien", required_features=("sse9", "avx2"))
    with pytest.raises(TargetError, match=r"cannot run target alien: it lacks sse9"):
        run([kernels.tiles_task()], TuningStore(tmp_path), target=alien)
    with pytest.raises(TargetError, match="lacks"):
        tune(None, target=alien)


def test_kernels_of_a_gpu_are_timed_by_a_plan():
    with pytest.raises(TargetError, match=r"--target sm_90 --plan DIR, then python DIR/measure.py"):
        tune(None, target="sm_90")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_s": 0}, r"budget is 0 \(int\); give seconds"),
        ({"budget_s": float("nan")}, "budget is nan "),
        ({"budget_s": "10m"}, r"budget is '10m' \(str\); give seconds"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": usable_cpu_count() + 1}, "timed waiting for each other"),
        ({"batch_sizes": ()}, "batch sizes are"),
        ({"batch_sizes": (4, 0)}, "batch sizes are"),
        ({"batch_sizes": "4"}, r"batch sizes are '4' \(str\)"),
        ({"board": 9090}, r"board is 9090 \(int\); give HOST:PORT"),
        ({"board": "pi5"}, "'pi5' is no address of an RPC server"),
        ({"precision": None}, "precision is None; give fp32"),
        ({"logs": 5}, "logs is 5"),
        ({"progress": 5}, "progress is 5"),
        ({"batch_sizes": 4}, r"model is None; give what tvmdet.import_onnx\(\) returns"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        tune(None, **options)


def test_the_intrinsics_of_every_target_are_not_imported(tmp_path):
    run([kinds("fine", "other")], TuningStore(tmp_path))
    assert "tvm.s_tir.tensor_intrin" not in sys.modules

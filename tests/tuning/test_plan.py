"""A tuning plan, made and measured for the CPU at hand: the mechanics are those of a GPU's."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from fake_driver import FakeDriver

import tvmdet
from tvmdet.errors import InputError
from tvmdet.gpus import GpuNeeds, ask
from tvmdet.tuning import measure_plan
from tvmdet.tuning.plan import collect_plan, make_plan
from tvmdet.tuning.store import TuningStore


def _network(folder: Path) -> Any:
    graph = onnx_models.Graph()
    rng = np.random.default_rng(0)
    weights = graph.constant(rng.standard_normal((8, 3, 3, 3)))
    result = graph.node("Conv", "x", weights, pads=[1, 1, 1, 1])
    proto = graph.model({"x": (1, 3, 8, 8)}, {result: None})
    return tvmdet.import_onnx(onnx_models.save(proto, folder / "net.onnx"), raw=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of one kernel with three candidates."""
    folder = tmp_path_factory.mktemp("plan")
    report = make_plan(
        _network(folder), target="host", folder=folder / "plan", candidates=3, logs=folder / "logs"
    )
    assert (report.tasks, report.candidates, report.failed) == (1, 3, ())
    return folder / "plan"


@pytest.fixture
def plan(made: Path, tmp_path: Path) -> Path:
    """A copy of it, as on another machine."""
    return Path(shutil.copytree(made, tmp_path / "there"))


def _measure(plan: Path) -> subprocess.CompletedProcess[str]:
    # Nothing of tvmdet may be needed: not even its folder is the working directory.
    return subprocess.run(
        [sys.executable, "-P", str(plan / "measure.py")],
        capture_output=True,
        text=True,
        cwd=plan.parent,
        check=False,
    )


def _lines(plan: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (plan / "results.jsonl").read_text().splitlines()]


def test_a_plan_is_measured_and_collected_once(plan: Path, tmp_path: Path) -> None:
    done = _measure(plan)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 candidates to measure" in done.stdout
    assert [line["candidate"] for line in _lines(plan)] == [0, 1, 2]
    first = collect_plan(plan, logs=tmp_path / "logs")
    assert (first.measured, first.failed, first.missing, first.new) == (3, 0, 0, 3)
    assert collect_plan(plan, logs=tmp_path / "logs").new == 0
    records = TuningStore(tmp_path / "logs").records(first.target)
    assert len(records) == 3
    assert all(record.ok and record.score_s > 0 for record in records)


def test_measuring_goes_on_where_it_stopped(plan: Path) -> None:
    _measure(plan)
    whole = (plan / "results.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    # The second line was torn off by a crash.
    (plan / "results.jsonl").write_bytes(whole[: first + 20])
    done = _measure(plan)
    assert "2 of 3 candidates to measure" in done.stdout
    assert [line["candidate"] for line in _lines(plan)] == [0, 1, 2]
    assert (plan / "results.jsonl").read_bytes()[:first] == whole[:first]


@pytest.fixture
def with_stubs(plan: Path) -> Callable[[str], Path]:
    """Puts functions in C in front of those of the plan's library, whose others stay."""

    def put(source: str) -> Path:
        described = json.loads((plan / "plan.json").read_text())
        (task,) = described["tasks"]
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", "-o", "stubs.so"]
        command += ["-Wl,--no-as-needed,-rpath,$ORIGIN", task["library"]]
        subprocess.run(command, input=source, text=True, check=True, cwd=plan)
        task["library"] = "stubs.so"
        task["sha256"] = hashlib.sha256((plan / "stubs.so").read_bytes()).hexdigest()
        (plan / "plan.json").write_text(json.dumps(described))
        return plan

    return put


def test_a_kernel_that_crashes_costs_itself_alone(
    with_stubs: Callable[[str], Path], tmp_path: Path
) -> None:
    crash = "int __tvm_ffi_d1(void* s, void* a, int n, void* r) { abort(); }"
    plan = with_stubs(f"#include <stdlib.h>\n{crash}")
    done = _measure(plan)
    assert done.returncode == 0, done.stderr
    crashed = next(line for line in _lines(plan) if line["candidate"] == 1)
    assert crashed["error"] == "the process was ended by SIGABRT"
    assert crashed["error_kind"] == "crash"
    report = collect_plan(plan, logs=tmp_path / "logs")
    assert (report.measured, report.failed) == (2, 1)


def test_a_candidate_that_answers_otherwise_is_recorded_as_failed(
    with_stubs: Callable[[str], Path], tmp_path: Path
) -> None:
    """It does nothing, which is faster than anything."""
    plan = with_stubs("int __tvm_ffi_d1(void* s, void* a, int n, void* r) { return 0; }")
    done = _measure(plan)
    assert done.returncode == 0, done.stderr
    first, wrong, last = _lines(plan)
    assert wrong["error_kind"] == "wrong", wrong
    assert wrong["error"] == "wrong: 512 of argument 2's numbers are others than the default"
    assert first["latencies_s"] and last["latencies_s"]
    report = collect_plan(plan, logs=tmp_path / "logs")
    assert (report.measured, report.failed) == (2, 1)
    (record,) = (r for r in TuningStore(tmp_path / "logs").records(report.target) if not r.ok)
    assert record.error_kind == "wrong"


def test_without_the_defaults_answer_none_is_believed(with_stubs: Callable[[str], Path]) -> None:
    crash = "int __tvm_ffi_d0(void* s, void* a, int n, void* r) { abort(); }"
    done = _measure(with_stubs(f"#include <stdlib.h>\n{crash}"))
    assert done.returncode == 0, done.stderr
    said = "the default gave no answer: the process was ended by SIGABRT"
    lines = _lines(Path(done.args[-1]).parent)
    assert [(line["error"], line["error_kind"]) for line in lines] == [(said, "crash")] * 3


def test_the_default_is_there_when_it_is_measured_already(plan: Path, tmp_path: Path) -> None:
    _measure(plan)
    collect_plan(plan, logs=tmp_path / "logs")
    again = tmp_path / "again"
    make_plan(_network(tmp_path), target="host", folder=again, candidates=2, logs=tmp_path / "logs")
    (task,) = json.loads((again / "plan.json").read_text())["tasks"]
    assert task["default"] == "default"
    assert _measure(again).returncode == 0
    assert all("latencies_s" in line for line in _lines(again))


@pytest.mark.parametrize("sm", ["sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90"])
def test_the_gpu_is_chosen_as_a_file_chooses_it(sm: str) -> None:
    held = [("Tesla T4", 75), ("A100", 80), ("L4", 89), ("Orin", 87), ("H100", 90)]
    for gpus in (held, held[::-1], held[1:2], held[3:4]):
        driver: Any = FakeDriver(13000, gpus)
        index = ask(driver).device_for(GpuNeeds(sm=sm))
        if index is None:
            with pytest.raises(measure_plan.PlanError, match=f"for {sm}, and this machine has "):
                measure_plan._find_gpu(driver, sm)
        else:
            assert measure_plan._find_gpu(driver, sm) == (index, gpus[index][0])


def test_a_plan_of_another_version_is_refused_on_both_sides(plan: Path, tmp_path: Path) -> None:
    described = json.loads((plan / "plan.json").read_text())
    (plan / "plan.json").write_text(json.dumps({**described, "version": 99}))
    done = _measure(plan)
    assert done.returncode == 1
    assert "plan of version 99; this measure.py measures version 2" in done.stderr
    with pytest.raises(InputError, match="plan of version 99"):
        collect_plan(plan, logs=tmp_path / "logs")


def test_a_damaged_library_is_not_loaded(plan: Path) -> None:
    library = plan / "k000.so"
    library.write_bytes(library.read_bytes()[:-1])
    done = _measure(plan)
    assert done.returncode == 1
    assert "k000.so is missing or damaged; copy the whole folder again" in done.stderr


def test_what_is_no_measured_plan_is_refused(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no results.jsonl yet; run measure.py"):
        collect_plan(plan, logs=tmp_path / "logs")
    with pytest.raises(InputError, match=r"plan.json cannot be read"):
        collect_plan(tmp_path, logs=tmp_path / "logs")
    (plan / "results.jsonl").write_text('{"task": 0, "candidate": 0, "plan": "another"}\n')
    with pytest.raises(InputError, match="holds results of another plan"):
        collect_plan(plan, logs=tmp_path / "logs")


def test_a_folder_that_holds_something_is_not_written_to(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds something already"):
        make_plan(_network(tmp_path), target="host", folder=made)

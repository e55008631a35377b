"""A tuning plan, made and measured for the CPU at hand: the mechanics are those of a GPU's."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest

import tvmdet
from tvmdet.errors import InputError
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


def test_a_kernel_that_crashes_costs_itself_alone(plan: Path, tmp_path: Path) -> None:
    # A kernel of another task, which ends its process.
    described = json.loads((plan / "plan.json").read_text())
    described["tasks"].insert(0, {**described["tasks"][0], "anchor": "broken"})
    described["tasks"][0]["candidates"] = [{**described["tasks"][1]["candidates"][0]}]
    source = tmp_path / "crash.c"
    source.write_text(
        "#include <stdlib.h>\nint __tvm_ffi_d0(void* s, void* a, int n, void* r) { abort(); }\n"
    )
    library = plan / "crash.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    described["tasks"][0]["library"] = library.name
    described["tasks"][0]["sha256"] = hashlib.sha256(library.read_bytes()).hexdigest()
    (plan / "plan.json").write_text(json.dumps(described))
    done = _measure(plan)
    assert done.returncode == 0, done.stderr
    first, *others = _lines(plan)
    assert first["error"] == "the process was ended by SIGABRT"
    assert first["error_kind"] == "crash"
    assert all("latencies_s" in line for line in others)
    report = collect_plan(plan, logs=tmp_path / "logs")
    assert (report.measured, report.failed) == (3, 1)


def test_a_plan_of_another_version_is_refused_on_both_sides(plan: Path, tmp_path: Path) -> None:
    described = json.loads((plan / "plan.json").read_text())
    (plan / "plan.json").write_text(json.dumps({**described, "version": 99}))
    done = _measure(plan)
    assert done.returncode == 1
    assert "plan of version 99; this measure.py measures version 1" in done.stderr
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

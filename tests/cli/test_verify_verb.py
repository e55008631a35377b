"""`verify`: exit codes, and one error that says what changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tvmdet.report import BenchOptions, Plan, Result, bench, dump_result, load_result
from tvmdet.report.result_format import SCHEMA
from tvmdet.report.typed_json import from_json, to_json


@pytest.fixture(scope="module")
def record(raw_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a benchmark of the toy network wrote."""
    report = bench(raw_path, BenchOptions(plan=Plan(rounds=8), threads=1, peak=False))
    path = tmp_path_factory.mktemp("record") / "record.json"
    path.write_text(dump_result(report.to_dict()))
    return path


def steady(value: dict[str, Any], factor: float = 1.0, **disturbance: Any) -> dict[str, Any]:
    """The same result on a machine without noise, every call slower by a factor."""
    (table,) = value["tables"]
    table["entries"][0]["rounds_us"] = [100.0 * factor] * 8
    quiet = {"others_cpus": 0.0, "stolen_cpus": 0.0, "findings": [], "yardstick_us": [900.0] * 8}
    table["disturbance"].update({**quiet, **disturbance})
    return {**value, "tables": [{**table, "noise": None}]}


@pytest.fixture
def quiet_record(record: Path, tmp_path: Path) -> Path:
    """The same of a machine without noise."""
    path = tmp_path / "quiet.json"
    path.write_text(dump_result(steady(json.loads(record.read_text()))))
    return path


@pytest.fixture
def now(record: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the benchmark give the record again, every call slower by a factor."""

    class Report:
        def __init__(self, value: dict[str, Any]) -> None:
            self.value = value

        def to_dict(self) -> dict[str, Any]:
            return self.value

    def prepare(factor: float = 1.0, **disturbance: Any) -> None:
        value = steady(json.loads(record.read_text()), factor, **disturbance)
        monkeypatch.setattr("tvmdet.report.repetition.bench", lambda *_a, **_k: Report(value))

    return prepare


def test_a_real_repetition_passes_and_is_saved(run: Callable, record: Path, tmp_path: Path) -> None:
    saved, changes = tmp_path / "new.json", tmp_path / "changes.json"
    words = ["--rounds", "8", "--save", saved, "--json", changes]
    done = run("verify", record, *words)
    assert done.code == 0, done.err
    assert "network, batch 1" in done.out
    assert load_result(saved).artifact == load_result(record).artifact
    found = json.loads(changes.read_text())
    assert (found["ok"], found["parity"], found["attempts"] >= 1) == (True, [], True)


@pytest.mark.parametrize("option", ["--json", "--save"])
def test_nothing_writes_over_the_record(run: Callable, quiet_record: Path, option: str) -> None:
    before = quiet_record.read_bytes()
    done = run("verify", quiet_record, option, quiet_record)
    assert done.code == 2
    assert "would be written over; name another file" in done.error
    assert quiet_record.read_bytes() == before


def test_a_regression_fails(run: Callable, quiet_record: Path, now: Callable[..., None]) -> None:
    now(1.1)
    done = run("verify", quiet_record)
    assert done.code == 1
    assert "network, batch 1 takes" in done.error
    assert "seen in 2 of 2 runs" in done.error
    done = run("verify", quiet_record, "--json", "-")
    assert done.code == 1
    assert json.loads(done.out)["slower"]


def test_a_busy_machine_fails_only_when_strict(
    run: Callable, quiet_record: Path, now: Callable[..., None]
) -> None:
    now(1.1, others_cpus=99.0, findings=["busy: other processes used 99.00 CPUs"])
    done = run("verify", quiet_record)
    assert done.code == 0
    assert "slower, but no finding: busy: other processes used 99.00 CPUs" in done.err
    done = run("verify", quiet_record, "--strict")
    assert done.code == 1
    assert "cannot tell, busy" in done.error


def test_a_strict_run_must_be_able_to_see(
    run: Callable, quiet_record: Path, now: Callable[..., None]
) -> None:
    now()
    assert run("verify", quiet_record, "--strict").code == 0
    now(others_cpus=1.2, findings=["busy: other processes used 1.22 CPUs"])
    assert run("verify", quiet_record).code == 0
    done = run("verify", quiet_record, "--strict")
    assert done.code == 1
    assert "network, batch 1: cannot tell, busy: other processes used 1.22 CPUs" in done.error
    # Yardsticks that hop: what is compared is the time over theirs.
    now(yardstick_us=[300.0, 900.0, 2700.0, 900.0] * 2)
    assert run("verify", quiet_record).code == 0
    done = run("verify", quiet_record, "--strict", "--json=-")
    assert done.code == 1
    assert "a slow-down of 10.0% could have been missed" in done.error
    value = json.loads(done.out)
    assert (value["ok"], value["slower"], len(value["unable"])) == (False, [], 1)
    assert value["changes"][0]["could_see"] > 0.1
    assert run("verify", quiet_record, "--strict", "--sees", "2%").code == 1
    assert run("verify", quiet_record, "--strict", "--sees", "20").code == 2


def test_a_pass_says_what_it_could_not_see(
    run: Callable, quiet_record: Path, now: Callable[..., None]
) -> None:
    now()
    done = run("verify", quiet_record)
    assert done.out.splitlines()[-1] == (
        "passed: of 1 measure none is slower beyond noise; 1 undecided, where one below 1% could "
        "have been missed (--strict fails where 10% could)"
    )
    done = run("verify", quiet_record, "--rounds", "8", "--strict")
    assert done.out.splitlines()[-1].endswith("where one below 1% could have been missed")


def test_what_is_slower_and_no_finding_is_not_called_as_fast(
    run: Callable, record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tvmdet takes as long as before, one rival half as long and another longer."""

    def beside(rivals_us: dict[str, float], **load: Any) -> dict[str, Any]:
        value = steady(json.loads(record.read_text()), **load)
        (table,) = value["tables"]
        (ours,) = table["entries"]
        others = [{**ours, "name": name, "rounds_us": [us] * 8} for name, us in rivals_us.items()]
        return {**value, "tables": [{**table, "entries": [ours, *others]}]}

    def measured_now(rivals_us: dict[str, float], **load: Any) -> None:
        now = from_json(Result, beside(rivals_us, **load))
        report = SimpleNamespace(to_dict=lambda: to_json(now))
        monkeypatch.setattr("tvmdet.report.repetition.bench", lambda *_a, **_k: report)

    path = tmp_path / "beside.json"
    path.write_text(dump_result(beside({"ncnn": 200.0, "mnn": 200.0})))
    measured_now({"ncnn": 100.0, "mnn": 220.0})
    done = run("verify", path)
    assert done.code == 0, done.err
    last = done.out.splitlines()[-1]
    assert "none is slower" not in last
    assert "slower here is network, batch 1, against ncnn, which alone proves nothing" in last
    hopping = [300.0, 900.0, 2700.0, 900.0] * 2
    measured_now({"ncnn": 100.0, "mnn": 150.0}, yardstick_us=hopping)
    done = run("verify", path)
    assert done.code == 1
    assert "mnn, timed beside it both times, shows it" in done.err
    assert "network, batch 1 takes 33.3% longer" in done.error


def test_records_that_cannot_be_repeated(run: Callable, record: Path, tmp_path: Path) -> None:
    recorded = load_result(record)

    def changed(**changes: Any) -> Path:
        path = tmp_path / "changed.json"
        path.write_text(dump_result(to_json(replace(recorded, **changes))))
        return path

    assert "was recorded on another machine" in refused(
        run, changed(machine=replace(recorded.machine, cpu="Elsewhere"))
    )
    missing = replace(recorded.artifact, path=str(tmp_path / "gone.tvmdet"))
    assert "there is no such file" in refused(run, changed(artifact=missing))
    assert f"has schema {SCHEMA + 1}" in refused(run, changed(schema=SCHEMA + 1))
    path = tmp_path / "cut.json"
    path.write_text(record.read_text()[:1000])
    assert "is cut off" in refused(run, path) or "is not JSON" in refused(run, path)
    path.write_text('{"name": "another program\'s"}')
    assert "not a result of `tvmdet bench --json`" in refused(run, path)
    assert "cannot read" in refused(run, tmp_path / "none.json")


@pytest.mark.parametrize("option", ["--json", "--save"])
def test_files_are_tried_before_anything_is_measured(
    run: Callable, record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def measured(*_words: Any, **_options: Any) -> None:
        pytest.fail("it was measured all the same")

    monkeypatch.setattr("tvmdet.report.verify", measured)
    for place, says in (
        (tmp_path / "no" / "r.json", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        done = run("verify", record, f"{option}={place}")
        assert done.code == 1
        assert f"cannot write {place}: {says}" in done.error
        assert option in done.error
    assert list(tmp_path.iterdir()) == []


def refused(run: Callable, path: Path) -> str:
    done = run("verify", path)
    assert done.code == 1
    return done.error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--attempts", "0"], "attempts"),
        (["--duration", "soon"], "'soon' is no time"),
        (["--strict", "--sees", "a bit"], "'a bit' is no share of a time"),
        (["--strict", "--sees", "0%"], "'0%' is no share of a time"),
        (["--rounds", "none"], "rounds"),
    ],
)
def test_wrong_usage(run: Callable, record: Path, words: list[str], says: str) -> None:
    done = run("verify", record, *words)
    assert done.code == 2
    assert says in done.error


def test_the_record_is_a_result(record: Path) -> None:
    value = json.loads(record.read_text())
    assert to_json(from_json(Result, value)) == value

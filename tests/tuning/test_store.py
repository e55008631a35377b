"""The tuning store: nothing measured is lost, and nothing of one target reaches another."""

import dataclasses
import errno
import json
import logging
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tvmdet.schedules.base import Decision

from tvmdet.errors import TuningError
from tvmdet.tuning import TuningRecord, TuningStore, default_store


def make_record(**changes):
    fields = {
        "target": "x86-64-v4",
        "fingerprint": "00ff",
        "anchor": "conv 3x3",
        "decision": Decision.of("x86.conv", tile=8, order="rows"),
        "latencies_s": (2e-3, 1e-3, 3e-3),
        "threads": 2,
        "cpu": "some chip",
        "tvm": "0.27",
        "time": 1.5,
        "model": "net",
    }
    return TuningRecord(**{**fields, **changes})


def failure(kind, **changes):
    return make_record(latencies_s=(), error="it broke", error_kind=kind, **changes)


def tiled(tile, seconds, **changes):
    decision = Decision.of("x86.conv", tile=tile)
    return make_record(decision=decision, latencies_s=(seconds,), **changes)


@pytest.fixture
def log_file(tmp_path):
    return tmp_path / "x86-64-v4" / "records.jsonl"


def test_an_empty_store_knows_nothing(tmp_path):
    store = TuningStore(tmp_path / "not there")
    assert store.records("x86-64-v4") == ()
    assert store.best("x86-64-v4", "00ff") is None
    assert store.borrow("x86-64-v4", "conv 3x3", "x86.conv") is None
    assert store.measured("x86-64-v4", "00ff") == {}
    assert not (tmp_path / "not there").exists()


@pytest.mark.parametrize("record", [make_record(), failure("build")])
def test_a_record_reads_back_as_it_was_written(tmp_path, record):
    TuningStore(tmp_path, cpu="some chip").append(record)
    assert TuningStore(tmp_path, cpu="some chip").records("x86-64-v4") == (record,)


def test_the_figures_of_a_record():
    assert (make_record().median_s, make_record().min_s) == (2e-3, 1e-3)
    noisy = make_record(latencies_s=(9.0, 1.0, 9.0, 2.0, 9.0, 9.0, 9.0, 3.0))
    assert (noisy.score_s, noisy.median_s, noisy.min_s) == (3.0, 9.0, 1.0)
    assert failure("run").score_s == float("inf")
    assert failure("run").median_s == float("inf")
    assert not failure("run").ok


def test_best_is_the_lowest_latency_and_never_a_failure(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    for record in (tiled(1, 3.0), tiled(2, 1.0), failure("crash"), tiled(4, 2.0)):
        store.append(record)
    assert store.best("x86-64-v4", "00ff").decision["tile"] == 2


def test_no_record_crosses_to_another_target(tmp_path, caplog):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(make_record())
    assert store.best("x86-64-v3", "00ff") is None
    assert store.borrow("x86-64-v3", "conv 3x3", "x86.conv") is None
    # Not even when a file is copied to the folder of another target.
    (tmp_path / "x86-64-v3").mkdir()
    line = make_record().to_line()
    (tmp_path / "x86-64-v3" / "copied.jsonl").write_bytes(line)
    fresh = TuningStore(tmp_path, cpu="some chip")
    with caplog.at_level(logging.WARNING):
        assert fresh.best("x86-64-v3", "00ff") is None
    assert "copied.jsonl line 1 is of target x86-64-v4" in caplog.text


def test_the_same_number_of_threads_comes_first(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1.0, threads=8))
    assert store.best("x86-64-v4", "00ff", 2).threads == 8  # better than nothing
    store.append(tiled(2, 5.0, threads=2))
    assert store.best("x86-64-v4", "00ff", 2).threads == 2
    assert store.best("x86-64-v4", "00ff").threads == 8
    assert set(store.measured("x86-64-v4", "00ff", 2)) == {Decision.of("x86.conv", tile=2)}


def test_borrow_takes_the_same_anchor_and_template_with_any_epilogue(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 2.0, fingerprint="aa"))
    store.append(tiled(2, 1.0, fingerprint="bb"))
    store.append(tiled(3, 0.1, fingerprint="cc", anchor="conv 5x5"))
    other = Decision.of("x86.winograd", tile=9)
    store.append(make_record(decision=other, latencies_s=(0.1,)))
    assert store.borrow("x86-64-v4", "conv 3x3", "x86.conv").decision["tile"] == 2


@pytest.mark.parametrize(
    ("kinds", "settled"),
    [
        (["schedule"], True),
        (["build"], True),
        (["crash"], True),
        (["timeout"], False),
        (["killed"], False),
        (["timeout", "timeout"], True),
    ],
)
def test_only_what_a_busy_machine_may_have_caused_is_tried_again(tmp_path, kinds, settled):
    store = TuningStore(tmp_path, cpu="some chip")
    for kind in kinds:
        store.append(failure(kind))
    assert (make_record().decision in store.measured("x86-64-v4", "00ff", 2)) is settled


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_passed_over_and_removed_by_the_next_append(
    tmp_path, log_file, caplog, cut
):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1.0))
    whole = log_file.read_bytes()
    torn = tiled(2, 2.0).to_line()
    log_file.write_bytes(whole + torn[:-cut] if cut > 1 else whole + torn[: len(torn) // 2])
    with caplog.at_level(logging.WARNING):
        again = TuningStore(tmp_path, cpu="some chip")
        assert again.records("x86-64-v4") == (tiled(1, 1.0),)
    assert caplog.text == ""
    again.append(tiled(3, 3.0))
    assert log_file.read_bytes() == whole + tiled(3, 3.0).to_line()


def test_a_last_line_that_lacks_only_its_newline_is_kept(tmp_path, log_file):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1.0))
    log_file.write_bytes(log_file.read_bytes().rstrip(b"\n"))
    assert len(TuningStore(tmp_path, cpu="some chip").records("x86-64-v4")) == 1
    TuningStore(tmp_path, cpu="some chip").append(tiled(2, 2.0))
    assert TuningStore(tmp_path, cpu="some chip").records("x86-64-v4") == (
        tiled(1, 1.0),
        tiled(2, 2.0),
    )


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"version": "x"}',
        make_record().to_line().replace(b'"threads":2', b'"threads":null').strip(),
        make_record().to_line().replace(b"0.002,0.001,0.003", b"").strip(),
        make_record().to_line().replace(b'"tile":8', b'"tile":[8]').strip(),
    ],
)
def test_a_damaged_line_is_skipped_with_its_file_and_number(tmp_path, log_file, caplog, line):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1.0))
    log_file.write_bytes(line + b"\n" + log_file.read_bytes())
    again = TuningStore(tmp_path, cpu="some chip")
    with caplog.at_level(logging.WARNING):
        assert again.records("x86-64-v4") == (tiled(1, 1.0),)
    assert "records.jsonl line 1 is no tuning record" in caplog.text
    assert again.skipped_malformed == 1


def test_records_of_a_later_version_are_skipped_counted_and_kept(tmp_path, log_file):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1.0))
    future = json.dumps({"version": 99, "anything": "else"}).encode() + b"\n"
    log_file.write_bytes(log_file.read_bytes() + future)
    again = TuningStore(tmp_path, cpu="some chip")
    assert len(again.records("x86-64-v4")) == 1
    assert (again.skipped_other_version, again.skipped_malformed) == (1, 0)
    again.append(tiled(2, 2.0))
    assert future in log_file.read_bytes()


def test_layers_are_all_read_and_one_is_written(tmp_path):
    shipped, user, logs = (tmp_path / name for name in ("shipped", "user", "logs"))
    TuningStore(shipped).append(tiled(1, 1.0))
    TuningStore(user).append(tiled(2, 2.0))
    store = TuningStore(shipped, user, writable=logs)
    store.append(tiled(3, 3.0))
    assert [r.decision["tile"] for r in store.records("x86-64-v4")] == [1, 2, 3]
    assert len(TuningStore(logs).records("x86-64-v4")) == 1
    assert len(TuningStore(shipped).records("x86-64-v4")) == 1


def test_the_default_store_writes_to_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TVMDET_TUNING_LOGS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    default_store().append(make_record(target="nowhere"))
    folder = tmp_path / "data" / "tvmdet" / "tuning_logs" / "nowhere"
    assert (folder / "records.jsonl").is_file()
    monkeypatch.setenv("TVMDET_TUNING_LOGS", str(tmp_path / "mine"))
    default_store().append(make_record(target="nowhere"))
    assert (tmp_path / "mine" / "nowhere" / "records.jsonl").is_file()
    default_store(tmp_path / "given").append(make_record(target="nowhere"))
    assert (tmp_path / "given" / "nowhere" / "records.jsonl").is_file()
    assert len(default_store(tmp_path / "given").records("nowhere")) == 2


def test_merge_adds_what_is_missing_and_nothing_twice(tmp_path):
    ours, theirs = TuningStore(tmp_path / "ours"), TuningStore(tmp_path / "theirs")
    ours.append(tiled(1, 1.0))
    theirs.append(tiled(1, 1.0))
    theirs.append(tiled(2, 2.0))
    assert ours.merge("x86-64-v4", tmp_path / "theirs") == 1
    assert ours.merge("x86-64-v4", tmp_path / "theirs") == 0
    assert len(TuningStore(tmp_path / "ours").records("x86-64-v4")) == 2


def test_compact_keeps_the_best_decisions_of_each_function_and_thread_count(tmp_path, log_file):
    store = TuningStore(tmp_path, cpu="some chip")
    for tile in (5, 1, 4, 2, 3):
        store.append(tiled(tile, float(tile)))
        store.append(tiled(tile, tile + 0.5))  # measured again, slower
        store.append(tiled(tile, float(tile), fingerprint="bb", threads=4))
    store.append(failure("build"))
    assert store.compact("x86-64-v4", keep=2) == 4
    kept = store.records("x86-64-v4")
    assert [(r.fingerprint, r.median_s) for r in kept] == [
        ("00ff", 1.0),
        ("00ff", 2.0),
        ("bb", 1.0),
        ("bb", 2.0),
    ]
    before = log_file.read_bytes()
    assert store.compact("x86-64-v4", keep=2) == 4
    assert log_file.read_bytes() == before
    assert store.compact("x86-64-v3") == 0


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TuningError, match=r"cannot be written to .*records\.jsonl"):
        TuningStore(tmp_path / "file").append(make_record())
    with pytest.raises(TuningError, match="no folder"):
        TuningStore().append(make_record())
    with pytest.raises(TuningError, match="cannot name a folder"):
        TuningStore(tmp_path, cpu="some chip").append(make_record(target="../outside"))


def test_a_full_disk_leaves_no_torn_line(tmp_path, log_file, monkeypatch):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1.0))
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:20]))
    with pytest.raises(TuningError, match=os.strerror(errno.ENOSPC)):
        store.append(tiled(2, 2.0))
    monkeypatch.undo()
    assert log_file.read_bytes() == tiled(1, 1.0).to_line()


APPEND_MANY = """
import sys
sys.path.insert(0, sys.argv[3])
from test_store import tiled
from tvmdet.tuning import TuningStore
store = TuningStore(sys.argv[1])
for number in range(40):
    store.append(tiled(int(sys.argv[2]) * 1000 + number, 1.0))
"""


def test_four_processes_may_append_and_compact_at_once(tmp_path):
    here = str(Path(__file__).parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND_MANY, str(tmp_path), str(n), here])
        for n in range(4)
    ]
    while any(writer.poll() is None for writer in writers):
        TuningStore(tmp_path, cpu="some chip").compact("x86-64-v4", keep=10**6)
        time.sleep(0.05)
    assert [writer.returncode for writer in writers] == [0] * 4
    store = TuningStore(tmp_path, cpu="some chip")
    tiles = sorted(record.decision["tile"] for record in store.records("x86-64-v4"))
    assert tiles == sorted(n * 1000 + i for n in range(4) for i in range(40))
    assert store.skipped_malformed == 0


def predicted(tile, cycles, **changes):
    decision = Decision.of("x86.conv", tile=tile)
    fields = {"decision": decision, "latencies_s": (), "predicted_cycles": cycles, "cpu": "mca 1"}
    return make_record(**{**fields, **changes})


def test_a_predicted_record_has_no_latency(tmp_path, log_file):
    record = predicted(1, 5e6)
    TuningStore(tmp_path).append(record)
    (line,) = log_file.read_text().splitlines()
    assert "latencies_s" not in json.loads(line)
    assert json.loads(line)["version"] == 3, "earlier versions pass over it"
    assert TuningStore(tmp_path).records("x86-64-v4") == (record,)
    assert (record.ok, record.cost) == (True, 5e6)
    assert {record.score_s, record.median_s, record.min_s} == {float("inf")}


@pytest.mark.parametrize("cycles", [0, -1.0, float("nan"), float("inf"), "many", None])
def test_a_prediction_that_is_none_is_skipped(tmp_path, log_file, cycles):
    log_file.parent.mkdir()
    data = predicted(1, 5e6).to_dict() | {"predicted_cycles": cycles}
    log_file.write_text(json.dumps(data) + "\n")
    store = TuningStore(tmp_path)
    assert store.records("x86-64-v4") == ()
    assert store.skipped_malformed == 1


def test_what_was_measured_wins_over_what_was_predicted(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(predicted(1, 1.0))
    assert store.best("x86-64-v4", "00ff").decision["tile"] == 1
    store.append(tiled(2, 1e3, cpu="another chip", threads=64))
    store.append(predicted(3, 2.0))
    for found in (
        store.best("x86-64-v4", "00ff", 2),
        store.borrow("x86-64-v4", "conv 3x3", "x86.conv", 2),
        store.comparable("x86-64-v4", ["conv 3x3"], 2)["conv 3x3"],
    ):
        assert found.decision["tile"] == 2


def test_predictions_of_two_models_do_not_compare(tmp_path):
    store = TuningStore(tmp_path)
    store.append(predicted(1, 1.0, time=1.0))
    store.append(predicted(2, 9.0, time=2.0, cpu="mca 2"))
    store.append(predicted(3, 8.0, time=1.5, cpu="mca 2"))
    assert store.best("x86-64-v4", "00ff").decision["tile"] == 3


def test_a_run_of_predictions_knows_its_predictor_alone(tmp_path):
    for record in (
        tiled(1, 1.0, cpu=""),
        tiled(2, 1.0),
        predicted(3, 1.0),
        predicted(4, 1.0, cpu="2"),
    ):
        TuningStore(tmp_path).append(record)
    found = TuningStore(tmp_path, cpu="mca 1", predicted=True).measured("x86-64-v4", "00ff")
    assert [decision["tile"] for decision in found] == [3]
    found = TuningStore(tmp_path, cpu="some chip").measured("x86-64-v4", "00ff")
    assert [decision["tile"] for decision in found] == [1, 2]


def test_compacting_keeps_the_fewest_cycles(tmp_path):
    store = TuningStore(tmp_path)
    for record in (predicted(1, 3.0), predicted(2, 1.0), predicted(3, 2.0), tiled(4, 1.0)):
        store.append(record)
    assert store.compact("x86-64-v4", keep=1) == 2
    assert {r.decision["tile"] for r in store.records("x86-64-v4")} == {2, 4}


def test_times_of_two_other_processors_are_not_compared(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1e-3, cpu="a fast chip", time=1.0))
    store.append(tiled(2, 5e-3, cpu="a slow chip", time=2.0))
    store.append(tiled(4, 6e-3, cpu="a slow chip", time=3.0))
    assert store.best("x86-64-v4", "00ff").decision["tile"] == 2
    store.append(tiled(8, 9e-3, time=0.5))
    assert store.best("x86-64-v4", "00ff").decision["tile"] == 8


def paced(tile, seconds, pace, **changes):
    return dataclasses.replace(tiled(tile, seconds, **changes), pace=pace)


def test_the_pace_of_the_machine_is_taken_out(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1.0))
    store.append(paced(2, 1.5, 1.6))
    found = TuningStore(tmp_path, cpu="some chip").best("x86-64-v4", "00ff")
    assert (found.decision["tile"], found.score_s) == (2, 1.5)
    assert found.cost == pytest.approx(1.5 / 1.6)


@pytest.mark.parametrize("pace", [0.0, -1.0, math.nan, math.inf, "fast"])
def test_a_pace_that_is_none_is_skipped(tmp_path, log_file, pace):
    TuningStore(tmp_path).append(tiled(1, 1.0))
    data = tiled(2, 0.5).to_dict() | {"pace": pace}
    log_file.write_bytes(log_file.read_bytes() + json.dumps(data).encode() + b"\n")
    store = TuningStore(tmp_path, cpu="some chip")
    assert store.best("x86-64-v4", "00ff").decision["tile"] == 1
    assert store.skipped_malformed == 1


def test_the_last_that_was_measured_in_turn_counts(tmp_path):
    """One lucky moment does not make a leader for ever."""
    store = TuningStore(tmp_path, cpu="some chip")
    store.append(tiled(1, 1.0))
    store.append(tiled(1, 1.2))
    assert store.best("x86-64-v4", "00ff").cost == 1.0, "alone: the better one"
    store.append(paced(2, 0.9, 1.0))
    assert store.best("x86-64-v4", "00ff").decision["tile"] == 2
    store.append(paced(2, 1.1, 1.0))
    store.append(tiled(2, 0.8))
    assert store.best("x86-64-v4", "00ff").decision["tile"] == 1
    costs = {d["tile"]: r.cost for d, r in store.measured("x86-64-v4", "00ff").items()}
    assert costs == {1: 1.0, 2: 1.1}
    assert store.compact("x86-64-v4", keep=2) == 2
    costs = {d["tile"]: r.cost for d, r in store.measured("x86-64-v4", "00ff").items()}
    assert costs == {1: 1.0, 2: 1.1}


def test_the_last_is_the_last_in_time(tmp_path):
    old, new = TuningStore(tmp_path / "old"), TuningStore(tmp_path / "new")
    new.append(paced(1, 1.0, 1.0, time=9.0))
    old.append(paced(1, 3.0, 1.0, time=2.0))
    assert new.merge("x86-64-v4", tmp_path / "old") == 1
    assert new.best("x86-64-v4", "00ff").cost == 1.0
    new.append(paced(1, 4.0, 1.0, time=9.0))
    assert new.best("x86-64-v4", "00ff").cost == 4.0


DIRECT, FAST, FUSED = "conv", "winograd4_conv", "pair"


def put(store, anchor, seconds, cpu="some chip", **more):
    store.append(make_record(anchor=anchor, latencies_s=(seconds,), cpu=cpu, **more))


def compared(store, threads=None):
    found = store.comparable("x86-64-v4", [DIRECT, FAST, FUSED], threads)
    return {anchor: (record.cpu, record.cost) for anchor, record in found.items()}


def test_what_is_compared_was_measured_by_one_processor(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    put(store, FAST, 0.1, "a fast chip")
    assert compared(store) == {}, "nobody knows the first"
    put(store, DIRECT, 0.2, "a fast chip")
    put(store, DIRECT, 3.0)
    assert compared(store) == {DIRECT: ("a fast chip", 0.2), FAST: ("a fast chip", 0.1)}
    put(store, FAST, 5.0)
    assert compared(store) == {DIRECT: ("some chip", 3.0), FAST: ("some chip", 5.0)}
    put(store, FUSED, 0.3, "a fast chip")
    assert compared(store) == {DIRECT: ("some chip", 3.0), FAST: ("some chip", 5.0)}, (
        "it has tried what the other found fastest"
    )
    put(store, FUSED, 0.05, "a fast chip")
    assert {cpu for cpu, _ in compared(store).values()} == {"a fast chip"}
    put(store, FUSED, 9.0, "")
    assert compared(store)[FUSED] == ("", 9.0), "one without a name is this one's"


def test_what_is_compared_was_measured_on_one_number_of_threads(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    put(store, DIRECT, 1.0, threads=8)
    put(store, DIRECT, 4.0)
    put(store, FAST, 2.2)
    assert compared(store, 8) == {DIRECT: ("some chip", 4.0), FAST: ("some chip", 2.2)}
    put(store, FAST, 0.6, threads=8)
    assert compared(store, 8) == {DIRECT: ("some chip", 1.0), FAST: ("some chip", 0.6)}
    assert compared(store, 2) == {DIRECT: ("some chip", 4.0), FAST: ("some chip", 2.2)}


def test_what_was_measured_and_what_was_predicted_are_not_compared(tmp_path):
    store = TuningStore(tmp_path, cpu="some chip")
    for anchor, cycles in ((DIRECT, 5.0), (FAST, 3.0)):
        store.append(dataclasses.replace(predicted(1, cycles), anchor=anchor))
    assert {cost for _, cost in compared(store).values()} == {5.0, 3.0}
    put(store, DIRECT, 1.0)
    assert compared(store) == {DIRECT: ("some chip", 1.0)}

"""What is known of a target: its own records first, those of another where there are none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tvmdet.schedules.base import Decision
from tvmdet.targets import get_target

from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.store import TuningStore
from tvmdet.tuning.target_records import TargetRecords

ZEN4, V4 = get_target("zen4"), get_target("x86-64-v4")
SLOW, FAST = Decision.of("t", tile=1), Decision.of("t", tile=2)


def _record(target: str, decision: Decision, seconds: float) -> TuningRecord:
    return TuningRecord(
        target=target,
        fingerprint="f",
        anchor="conv2d n1 h8",
        decision=decision,
        latencies_s=(seconds,),
        error="",
        error_kind="",
        threads=2,
        cpu="here",
        tvm="0.27",
        time=0.0,
        model="m",
    )


def test_own_records_win_over_faster_ones_of_another(tmp_path: Path) -> None:
    store = TuningStore(tmp_path, writable=tmp_path, cpu="here")
    inherited = _record("x86-64-v4", FAST, 1e-6)
    store.append(inherited)
    records = TargetRecords(store, ZEN4)
    assert records.best("f") == records.borrow("conv2d n1 h8", "t") == inherited
    own = _record("zen4", SLOW, 5e-6)
    store.append(own)
    assert records.best("f") == records.borrow("conv2d n1 h8", "t") == own
    assert records.comparable(["conv2d n1 h8"]) == {"conv2d n1 h8": own}


def test_what_another_measured_is_not_measured(tmp_path: Path) -> None:
    store = TuningStore(tmp_path, writable=tmp_path, cpu="here")
    store.append(_record("x86-64-v4", FAST, 1e-6))
    assert TargetRecords(store, ZEN4).measured("f") == {}
    assert set(TargetRecords(store, V4).measured("f")) == {FAST}


def test_nothing_flows_back(tmp_path: Path) -> None:
    store = TuningStore(tmp_path, writable=tmp_path, cpu="here")
    store.append(_record("zen4", FAST, 1e-6))
    assert TargetRecords(store, V4).best("f") is None
    alone = dataclasses.replace(ZEN4, records="zen4")
    assert TargetRecords(store, alone).best("f") is not None
    assert TargetRecords(store, alone).near_anchors("conv2d n1 h9") == (
        TargetRecords(store, ZEN4).near_anchors("conv2d n1 h9")
    )


def test_what_was_measured_wins_over_what_was_predicted_for_the_target_itself(
    tmp_path: Path,
) -> None:
    store = TuningStore(tmp_path, writable=tmp_path, cpu="here")
    own = dataclasses.replace(
        _record("zen4", FAST, 1.0), latencies_s=(), predicted_cycles=1.0, cpu="a model"
    )
    store.append(own)
    records = TargetRecords(store, ZEN4)
    assert records.best("f") == own
    inherited = _record("x86-64-v4", SLOW, 5.0)
    store.append(inherited)
    assert records.best("f") == inherited
    assert records.comparable(["conv2d n1 h8"]) == {"conv2d n1 h8": inherited}


def test_the_target_that_knows_more_rivals_is_asked(tmp_path: Path) -> None:
    store = TuningStore(tmp_path, writable=tmp_path, cpu="here")
    direct, fast = "conv2d n1 h8", "winograd4_conv2d n1 h8"
    inherited = {
        anchor: dataclasses.replace(_record("x86-64-v4", FAST, seconds), anchor=anchor)
        for anchor, seconds in ((direct, 2.0), (fast, 1.0))
    }
    own = {
        anchor: dataclasses.replace(_record("zen4", SLOW, seconds), anchor=anchor)
        for anchor, seconds in ((direct, 5.0), (fast, 6.0))
    }
    records = TargetRecords(store, ZEN4)
    for record in (*inherited.values(), own[direct]):
        store.append(record)
    assert records.comparable([direct, fast]) == inherited
    store.append(own[fast])
    assert records.comparable([direct, fast]) == own

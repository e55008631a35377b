"""Which workloads are alike, and what a record of one means to another."""

import math
from pathlib import Path

import pytest
from tvmdet.schedules.base import Decision

from tvmdet.tuning.nearness import distance, fitted, is_same_layer, skeleton
from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.store import TuningStore

CONV = "conv2d n1 h40 w40 c64 oc64 k3x3 s1x1 p1.1.1.1 d1x1 g1 float32"
LARGER = CONV.replace("h40 w40", "h80 w80")
WIDER = CONV.replace("c64 oc64", "c128 oc64")
STRIDED = CONV.replace("s1x1", "s2x2")
TOO_LARGE = CONV.replace("h40 w40", "h320 w320")


def knobs(**values):
    return Decision.of("t", **values)


def make_record(anchor, decision, seconds):
    return TuningRecord(
        target="x86-64-v4",
        fingerprint=f"{abs(hash((anchor, seconds))):016x}"[:16],
        anchor=anchor,
        decision=decision,
        latencies_s=(seconds,),
        error="",
        error_kind="",
        threads=2,
        cpu="",
        tvm="0",
        time=0.0,
        model="m",
    )


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (CONV, True),
        (LARGER, True),
        (CONV.replace("n1", "n8"), True),
        (WIDER, False),
        (STRIDED, False),
        (f"bf16_{CONV}", False),
    ],
)
def test_a_layer_is_the_same_on_other_pictures(other, same):
    assert is_same_layer(CONV, other) is same


@pytest.mark.parametrize(
    ("left", "right", "apart"),
    [
        (CONV, CONV, 0.0),
        (CONV, LARGER, 2.0),
        (CONV, WIDER, 1.0),
        (CONV, STRIDED, math.inf),
        (CONV, f"bf16_{CONV}", math.inf),
        ("softmax 1x100x64", "softmax 1x50x128", 2.0),
        ("softmax 1x100x64", "softmax 100x64", math.inf),
        (f"dw n1 h8 w8 c4 + {CONV}", f"dw n1 h4 w8 c4 + {LARGER}", 3.0),
    ],
)
def test_distances_are_doublings_of_sizes(left, right, apart):
    assert distance(left, right) == distance(right, left) == apart
    assert (skeleton(left) == skeleton(right)) == math.isfinite(apart)


def test_the_most_similar_valid_decision_is_taken():
    valid = [knobs(tile=13, order="a"), knobs(tile=26, order="a"), knobs(tile=20, order="b")]
    assert fitted(knobs(tile=20, order="a"), valid) == knobs(tile=26, order="a")
    assert fitted(knobs(tile=13, order="a"), valid) == valid[0]
    with pytest.raises(ValueError):
        fitted(Decision.of("other", tile=1), valid)


def test_the_nearest_workload_with_a_record_speaks(tmp_path: Path):
    store = TuningStore(writable=tmp_path)
    for anchor, tile, seconds in (
        (LARGER, 20, 2.0),
        (WIDER, 8, 3.0),
        (STRIDED, 1, 0.1),
        (TOO_LARGE, 2, 0.1),
    ):
        store.append(make_record(anchor, knobs(tile=tile), seconds))
    assert store.near_anchors("x86-64-v4", CONV) == [WIDER, LARGER]
    assert store.near("x86-64-v4", CONV, "t").decision == knobs(tile=8)
    assert store.near("x86-64-v4", CONV, "another") is None
    assert store.near("x86-64-v3", CONV, "t") is None
